// Version, paths, configuration and state of the stand-in: what both the CLI and the gateway read.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const manifest = JSON.parse(fs.readFileSync(new URL("./package.json", import.meta.url), "utf8"));
export const version = manifest.version;
export const schema = manifest.openclaw?.schemaVersions?.state ?? 1;
export const stateDir = process.env.OPENCLAW_STATE_DIR ?? path.join(os.homedir(), ".openclaw");
export const configPath = process.env.OPENCLAW_CONFIG_PATH ?? path.join(stateDir, "openclaw.json");
/** What is in hand, as a test has written it; nothing when the file is not there. */
export function busyWith() {
  const file = path.join(stateDir, "busy");
  return fs.existsSync(file) ? [{ kind: "agent-run", count: 1, message: fs.readFileSync(file, "utf8").trim() }] : [];
}

/** The gateway's tasks, as a test has written them in the form of `tasks.list`; none when the file is not there. */
export function tasks(status, limit) {
  const file = path.join(stateDir, "tasks.json");
  const all = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : [];
  return all.filter((task) => !status || task.status === status).slice(0, limit);
}

const statePath = path.join(stateDir, "state", "schema.json");

const [year, month, patch] = version.split(/[.-]/).map(Number);
const number = (year * 100 + month) * 10000 + patch;
const at = (y, m, p) => number >= (y * 100 + m) * 10000 + p;
export const hasLint = at(2026, 5, 28);
export const isNew = at(2026, 8, 1); // startupz, suspend, bare `doctor --json`, draining

const ROOT_KEYS = new Set(["gateway", "agents", "meta", "plugins", "update", "skills", "wizard", "channels"]);

export function compareVersions(a, b) {
  const [x, y] = [a, b].map((text) => text.split(/[.-]/).map(Number));
  for (let i = 0; i < 3; i += 1) if (x[i] !== y[i]) return x[i] - y[i];
  return 0;
}

/** The configuration and what is wrong with it: `{config, issues, missing}`. */
export function readConfig() {
  let text;
  try {
    text = fs.readFileSync(configPath, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return { config: null, missing: true, issues: [] };
    return { config: null, issues: [{ path: "<root>", message: `read failed: Error: ${error.code}` }] };
  }
  let config;
  try {
    config = JSON.parse(text);
  } catch {
    return { config: null, issues: [{ path: "<root>", message: "JSON5 parse failed: SyntaxError" }] };
  }
  const issues = [];
  for (const key of Object.keys(config)) {
    if (!ROOT_KEYS.has(key)) {
      issues.push({ path: "<root>", message: isNew ? `Unrecognized key: "${key}"` : "Invalid input" });
    }
  }
  const port = config.gateway?.port;
  if (port !== undefined && typeof port !== "number") {
    issues.push({ path: "gateway.port", message: "Invalid input: expected number, received string" });
  }
  if (isNew && config.meta?.lastTouchedAt !== undefined) {
    issues.push({ path: "meta", message: 'Unrecognized key: "lastTouchedAt"' });
  }
  return { config, issues };
}

export function writeConfig(config) {
  fs.writeFileSync(configPath, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
}

/** Schema number of the state on disk; 0 when there is none, NaN when it is damaged. */
export function stateSchema() {
  try {
    return Number(JSON.parse(fs.readFileSync(statePath, "utf8")).state ?? NaN);
  } catch (error) {
    return error.code === "ENOENT" ? 0 : NaN;
  }
}

export function writeState(extra = {}) {
  fs.mkdirSync(path.dirname(statePath), { recursive: true });
  fs.writeFileSync(statePath, JSON.stringify({ state: schema, ...extra }));
}
