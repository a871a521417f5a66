// Plugins as OpenClaw keeps them: one npm project each below the state, and a record of what was installed.
import { spawnSync } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { isNew, readConfig, stateDir, version, writeConfig } from "./settings.mjs";

const recordsPath = path.join(stateDir, "state", "plugins.json");
const core = fs.realpathSync(path.dirname(fileURLToPath(import.meta.url)));
const say = (value) => process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
const complain = (text) => {
  process.stderr.write(`${text}\n`);
  return 1;
};

/** By plugin id, as `plugins inspect` shows them. */
export function readRecords() {
  try {
    return JSON.parse(fs.readFileSync(recordsPath, "utf8"));
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw error;
  }
}

/** `{id, folder}` of installed plugins that the configuration has not switched off. */
export function enabledPlugins(config) {
  return Object.entries(readRecords())
    .filter(([id]) => config.plugins?.entries?.[id]?.enabled === true)
    .map(([id, record]) => ({ id, folder: record.installPath }));
}

/** What is recorded at another version than the core's, of OpenClaw's own plugins. */
export function drifts() {
  return Object.entries(readRecords())
    .filter(([, record]) => record.resolvedName.startsWith("@openclaw/") && record.version !== version)
    .map(([id, record]) => ({ pluginId: id, installedVersion: record.version, gatewayVersion: version }));
}

function npm(words, cwd) {
  const done = spawnSync("npm", words, { cwd, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`npm ${words[0]} failed: ${(done.stderr ?? String(done.error)).trim()}`);
  return done.stdout;
}

function lay(name, wanted) {
  const slug = name.replace("@", "").replaceAll("/", "-");
  const hash = crypto.createHash("sha256").update(name).digest("hex").slice(0, 10);
  const project = path.join(stateDir, "npm", "projects", `${slug}-${hash}`);
  fs.rmSync(project, { recursive: true, force: true });
  fs.mkdirSync(project, { recursive: true });
  fs.writeFileSync(path.join(project, "package.json"), JSON.stringify({ private: true, dependencies: { [name]: wanted } }));
  npm(["install", "--omit=dev", "--omit=peer", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"], project);
  return path.join(project, "node_modules", name);
}

function install(args) {
  const spec = args.find((word) => !word.startsWith("-"));
  const match = /^npm:((?:@[^/@]+\/)?[^/@]+)@([^@]+)$/.exec(spec ?? "");
  if (!match) return complain(`unsupported plugin spec: ${spec}`);
  const [, name, wanted] = match;
  const { config, issues, missing } = readConfig();
  if (missing || issues.length) return complain("Invalid config; run openclaw doctor --fix first.");
  const about = JSON.parse(npm(["view", `${name}@${wanted}`, "name", "version", "dist.integrity", "dist.shasum", "--json"], stateDir));
  const known = Object.values(readRecords()).some((record) => record.resolvedName === name);
  if (known && !args.includes("--force")) return complain(`plugin already installed: ${name}; use --force`);
  const first = name.startsWith("@openclaw/");
  if (!first && !args.includes("--force")) return complain("Install cancelled; rerun with --force after reviewing the source.");
  if (!first && isNew && !args.includes("--accept-capabilities")) return complain(`Plugin "${name}" requires capability consent.`);
  const folder = lay(name, wanted);
  const { id } = JSON.parse(fs.readFileSync(path.join(folder, "openclaw.plugin.json"), "utf8"));
  fs.mkdirSync(path.join(folder, "node_modules"), { recursive: true });
  fs.symlinkSync(core, path.join(folder, "node_modules", "openclaw"));
  const record = {
    source: "npm",
    spec: `${name}@${wanted}`,
    installPath: folder,
    version: about.version,
    resolvedName: about.name,
    resolvedVersion: about.version,
    resolvedSpec: `${about.name}@${about.version}`,
    integrity: about["dist.integrity"],
    shasum: about["dist.shasum"],
  };
  fs.mkdirSync(path.dirname(recordsPath), { recursive: true });
  fs.writeFileSync(recordsPath, JSON.stringify({ ...readRecords(), [id]: record }));
  const entry = config.plugins?.entries?.[id] ?? {};
  const entries = { ...config.plugins?.entries, [id]: { ...entry, enabled: entry.enabled ?? true } };
  writeConfig({ ...config, plugins: { ...config.plugins, entries } });
  process.stdout.write(`Installed plugin: ${id}\n`);
  return 0;
}

function describe(id, record) {
  const enabled = readConfig().config?.plugins?.entries?.[id]?.enabled === true;
  return { id, version: record.version, origin: "global", enabled, status: enabled ? "loaded" : "disabled", rootDir: record.installPath };
}

export function plugins(args) {
  const [verb, ...rest] = args;
  if (verb === "install" && rest.includes("--help")) {
    const options = ["--force", "--link", "--pin", ...(isNew ? ["--accept-capabilities"] : [])];
    process.stdout.write(`Usage: openclaw plugins install [options] <path-or-spec-or-plugin>\n\n  ${options.join("\n  ")}\n`);
    return 0;
  }
  const records = readRecords();
  switch (verb) {
    case "install":
      try {
        return install(rest);
      } catch (error) {
        return complain(error.message);
      }
    case "uninstall": {
      const [id] = rest.filter((word) => !word.startsWith("-"));
      if (!records[id]) return complain(`Plugin not found: ${id}`);
      if (!rest.includes("--force")) return complain("Uninstall needs a terminal, or --force.");
      fs.rmSync(path.dirname(path.dirname(records[id].installPath)), { recursive: true, force: true });
      const { [id]: _, ...others } = records;
      fs.writeFileSync(recordsPath, JSON.stringify(others));
      const { config } = readConfig();
      const entries = { ...config.plugins?.entries, [id]: { enabled: false } };
      writeConfig({ ...config, plugins: { ...config.plugins, entries } });
      process.stdout.write(`Uninstalled plugin "${id}".\n`);
      return 0;
    }
    case "inspect": {
      const record = records[rest[0]];
      if (!record) return complain(`Plugin not found: ${rest[0]}`);
      say({ plugin: describe(rest[0], record), install: record });
      return 0;
    }
    case "list": {
      const bundled = [{ id: "memory-core", version, origin: "bundled", enabled: true, status: "loaded" }];
      say({ plugins: [...bundled, ...Object.entries(records).map(([id, record]) => describe(id, record))], diagnostics: [] });
      return 0;
    }
    default:
      return complain(`error: unknown command '${verb ?? ""}'`);
  }
}
