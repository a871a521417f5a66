#!/usr/bin/env node
// A stand-in with the command surface of OpenClaw as far as Rollcall uses it. Not OpenClaw.
import { doctor } from "./doctor.mjs";
import { runGateway } from "./gateway.mjs";
import { drifts, plugins } from "./plugins.mjs";
import { skills } from "./skills.mjs";
import { configPath, isNew, readConfig, version } from "./settings.mjs";

const args = process.argv.slice(2);
const option = (name, fallback) => (args.includes(name) ? args[args.indexOf(name) + 1] : fallback);
const print = (value) => process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);

function port() {
  return Number(option("--port", readConfig().config?.gateway?.port ?? 18789));
}

async function rpc(method, params) {
  const token = readConfig().config?.gateway?.auth?.token;
  try {
    const response = await fetch(`http://127.0.0.1:${port()}/standin/rpc`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body: JSON.stringify({ method, params }),
      signal: AbortSignal.timeout(10000),
    });
    return await response.json();
  } catch (error) {
    const reason = `connect ECONNREFUSED 127.0.0.1:${port()}`;
    return { ok: false, error: { type: "gateway_transport_error", kind: "closed", reason, message: String(error.message) } };
  }
}

async function call(method, params = JSON.parse(option("--params", "{}"))) {
  const answer = await rpc(method, params);
  if (answer.ok === false && !isNew) {
    process.stderr.write(`Gateway call failed: ${answer.error.reason ?? answer.error.code}\n`);
    return 1;
  }
  print(answer);
  return answer.ok === false ? 1 : 0;
}

async function gateway() {
  switch (args[1]) {
    case "call":
      return call(args[2]);
    case "status": {
      const answer = await rpc("gateway-status");
      const drift = args.includes("--deep") ? { pluginVersionDrift: { gatewayVersion: version, drifts: drifts() } } : {};
      print({ cli: { version }, gateway: { port: port() }, ...drift, ...(answer.rpc ? answer : { rpc: { ok: false } }) });
      return 0;
    }
    case "suspend":
    case "resume":
      if (!isNew) {
        process.stderr.write(`error: unknown command '${args[1]}'\n`);
        return 1;
      }
      return args[1] === "suspend" ? call("suspend", { request: option("--request-id") }) : call("resume", { id: args[2] });
    default:
      return runGateway(port());
  }
}

function config() {
  const { issues, missing } = readConfig();
  const valid = !missing && issues.length === 0;
  print({ valid, path: configPath, ...(missing ? { error: "file not found" } : valid ? { warnings: [] } : { issues }) });
  return valid ? 0 : 1;
}

async function main() {
  if (args.includes("--version")) {
    process.stdout.write(`OpenClaw ${version} (standin)\n`);
    return 0;
  }
  if (args[0] === "doctor") return doctor(args.slice(1));
  if (args[0] === "gateway") return gateway();
  if (args[0] === "plugins") return plugins(args.slice(1));
  if (args[0] === "skills") return skills(args.slice(1));
  if (args[0] === "config" && args[1] === "validate") return config();
  process.stderr.write(`error: unknown command '${args[0] ?? ""}'\n`);
  return 1;
}

process.exitCode = await main();
if (args[0] === "gateway") process.exit();
