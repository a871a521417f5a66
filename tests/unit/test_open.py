"""`rollcall open`, and the link that it makes, against a real coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coordinator.api.pagelinks import LINK_S
from coordinator.page.sessions import COOKIE
from scripts.minifleet.demo import page_words
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.http import session
from shared.tls import client_context
from tests.support.coordinatorkit import Running

BROWSER = '#!/bin/sh\nprintf %s "$1" > "$OPENED"\n'


class LaterClock(SystemClock):
    """The system's, some seconds on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str
    opened: str


async def rollcall_open(
    running: Running, folder: Path, *words: str, browser: str = BROWSER, config: Path | None = None
) -> Said:
    program, opened = folder / "browser", folder / "opened"
    program.write_text(browser)
    program.chmod(0o700)
    opened.write_text("")
    file = config or running.settings.paths.client
    argv = [sys.executable, "-m", "coordinator", "open", *words, "--config", str(file)]
    env = {**os.environ, "BROWSER": str(program), "OPENED": str(opened)}
    env.pop("DISPLAY", None)
    done = await asyncio.to_thread(
        subprocess.run, argv, env=env, capture_output=True, text=True, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr, opened.read_text())


async def visit(running: Running, url: str, cookie: str = "") -> tuple[int, str]:
    """Status, and the session that was given, as a browser would that trusts the fleet's authority: by the address
    that stands in `url`."""
    context = client_context(running.client.config.ca_file)
    headers = {"Cookie": f"{COOKIE}={cookie}"} if cookie else {}
    async with (
        session(context=context, speaks=None) as client,
        client.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        given = SimpleCookie(answer.headers.get("Set-Cookie", "")).get(COOKIE)
        return answer.status, "" if given is None else given.value


async def test_the_browser_is_started_with_a_link_that_works_once(
    running: Running, tmp_path: Path
) -> None:
    said = await rollcall_open(running, tmp_path)
    assert (said.code, said.out) == (0, ""), said.err
    assert said.opened.startswith(f"{running.url}/enter/")
    assert said.opened not in said.err
    raw = await asyncio.to_thread(
        ssl.get_server_certificate, ("127.0.0.1", urlsplit(running.url).port or 0)
    )
    assert sha256_hex(ssl.PEM_cert_to_DER_cert(raw)) in said.err, "what a browser's warning shows"
    status, cookie = await visit(running, said.opened)
    assert status == 200
    assert (await visit(running, f"{running.url}/", cookie))[0] == 200
    assert await visit(running, said.opened) == (401, ""), "once only"
    rows = (await running.get("/v1/audit?limit=100"))["rows"]
    entered = [row["status"] for row in rows if row["action"] == "page sign-in by link"]
    assert sorted(entered) == [200, 401]


async def test_a_link_is_too_old_after_a_minute(running: Running, tmp_path: Path) -> None:
    clock = LaterClock()
    await running.restart(clock)
    said = await rollcall_open(running, tmp_path, "--json")
    assert (said.code, said.opened) == (0, "")
    link = json.loads(said.out)
    assert 0 < link["expires"] - time.time() <= LINK_S
    clock.ahead = LINK_S + 1
    assert await visit(running, link["url"]) == (401, "")
    clock.ahead = 0
    assert await visit(running, link["url"]) == (401, ""), "whoever came too late has used it"


async def test_without_a_browser_the_link_is_said(running: Running, tmp_path: Path) -> None:
    said = await rollcall_open(running, tmp_path, browser="#!/bin/sh\nexit 1\n")
    assert said.code == 3
    assert "no browser could be started here" in said.err
    assert (await visit(running, said.out.strip()))[0] == 200
    printed = await rollcall_open(running, tmp_path, "--print")
    assert (printed.code, printed.opened) == (0, "")
    assert (await visit(running, printed.out.strip()))[0] == 200


async def test_who_may_not_and_who_reaches_nobody_is_told(running: Running, tmp_path: Path) -> None:
    made = await running.operator("viewer")
    config = tmp_path / "viewer.toml"
    token = tmp_path / "viewer.token"
    token.write_text(str(made["token"]))
    token.chmod(0o600)
    ca = running.client.config.ca_file
    config.write_text(f'url = "{running.url}"\nca_file = "{ca}"\ntoken_file = "{token}"\n')
    assert (await rollcall_open(running, tmp_path, "--print", config=config)).code == 0
    await running.client.ask("DELETE", f"/v1/operator-tokens/{made['id']}")
    refused = await rollcall_open(running, tmp_path, config=config)
    assert (refused.code, refused.out, refused.opened) == (1, "", "")
    assert str(token) in refused.err
    assert "Traceback" not in refused.err
    await running.stop()
    away = await rollcall_open(running, tmp_path, "--json")
    assert (away.code, away.out) == (1, "")
    assert f"no answer from {running.url}" in away.err
    assert "does the coordinator run" in away.err


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_every_operator_may_look(running: Running, role: str) -> None:
    token = str((await running.operator(role))["token"])
    made = await running.reply("POST", "/v1/page-links", token=token, body=b"{}")
    assert (made.status, made.body["path"][:7]) == (201, "/enter/")


async def test_the_demo_says_a_command_that_opens_the_page(running: Running) -> None:
    config = running.settings.paths.client
    words = await asyncio.to_thread(page_words, config)
    assert running.url in words[0]
    argv = next(line for line in words if " open " in line).partition(": ")[2].split()
    done = await asyncio.to_thread(
        subprocess.run, [*argv, "--print"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (await visit(running, done.stdout.strip()))[0] == 200
    assert any(str(running.settings.paths.token) in line for line in words)
