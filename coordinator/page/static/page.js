// Small conveniences. Everything on the page works without them.
"use strict";

const AGE_EVERY_MS = 5000;
const AGAIN_MS = 2000;
const SIGNED_OUT = 401;

function inWords(seconds) {
  const whole = Math.max(0, Math.round(Math.abs(seconds)));
  const minutes = Math.floor(whole / 60), hours = Math.floor(whole / 3600), days = Math.floor(whole / 86400);
  if (whole < 120) return `${whole} s`;
  if (minutes < 60) return `${minutes} min`;
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

// Server and browser need not have the same time: ages count on from what the server said.
const drawn = document.querySelector("footer time");
const ahead = drawn ? Date.now() - Date.parse(drawn.dateTime) : 0;

function drawAges() {
  const now = (Date.now() - ahead) / 1000;
  for (const each of document.querySelectorAll("time[data-at]")) {
    const left = Number(each.dataset.at) - now;
    const text = left > 1 ? `in ${inWords(left)}` : inWords(left);
    if (each.textContent !== text) each.textContent = text;
  }
}

function announce() {
  const said = document.querySelector("#announced");
  const news = document.querySelector("[data-announce]");
  if (said && news && said.dataset.last !== news.textContent) {
    if (said.dataset.last !== undefined) said.textContent = news.textContent;
    said.dataset.last = news.textContent;
  }
}

function showLink(state, text) {
  const link = document.querySelector("#link");
  if (!link || link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = text;
}

// What was drawn anew is as of now.
function drawNow() {
  if (!drawn) return;
  const now = new Date(Date.now() - ahead).toISOString();
  drawn.dateTime = now;
  drawn.textContent = `${now.slice(11, 19)} Z`;
}

// htmx connects again whatever it was connected to. The first time is left to us.
function connectLater() {
  showLink("lost", "· not connected, trying again");
  setTimeout(() => htmx.ajax("GET", document.body.getAttribute("hx-sse:connect"), { source: document.body }), AGAIN_MS);
}

function lost(event) {
  showLink("lost", "· not connected, trying again");
  if (event.detail.status === SIGNED_OUT) location.reload();
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.textContent);
  button.textContent = "copied";
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button).catch(() => { button.textContent = "select it and copy"; });
});
document.documentElement.classList.add("scripted");

document.body.addEventListener("htmx:sse:after:connection", () => showLink("on", "· live"));
document.body.addEventListener("htmx:sse:error", lost);
for (const failed of ["htmx:error", "htmx:response:error"]) {
  document.body.addEventListener(failed, (event) => { if (event.target === document.body) connectLater(); });
}
document.body.addEventListener("htmx:after:swap", () => { drawNow(); drawAges(); announce(); });
announce();
setInterval(drawAges, AGE_EVERY_MS);
