// Doctor: read-only lint in the forms that each version has, and the fix that migrates.
import fs from "node:fs";
import { configPath, hasLint, isNew, readConfig, stateSchema, version, writeConfig, writeState } from "./settings.mjs";

const finding = (id, severity, message, extra = {}) => ({ checkId: `core/doctor/${id}`, severity, message, ...extra });

function inspect() {
  const { config, issues, missing } = readConfig();
  const total = isNew ? { checksRun: 35, checksSkipped: 30 } : { checksRun: 24, checksSkipped: 27 };
  if (missing) {
    return {
      ...total,
      findings: [
        finding("gateway-auth", "warning", "Gateway auth is off or missing a token.", { path: "gateway.auth" }),
        finding("gateway-config", "warning", "gateway.mode is unset; gateway start will be blocked.", { path: "gateway.mode" }),
      ],
    };
  }
  if (issues.length) {
    const findings = issues.map((i) => finding("final-config-validation", "error", i.message, { path: i.path }));
    return { checksRun: 1, checksSkipped: 0, findings };
  }
  if (Number.isNaN(stateSchema())) {
    const findings = [finding("legacy-state", "error", "database disk image is malformed")];
    return isNew ? { checksRun: 1, checksSkipped: 0, findings } : { ...total, findings };
  }
  const findings = [];
  if (config.gateway?.auth?.token) {
    findings.push(finding("security", "warning", "WARNING: openclaw.json contains plaintext secret-bearing config fields."));
  }
  if (isNew) findings.push(finding("node-hosting-preconditions", "warning", "Gateway is only bound to loopback.", { path: "gateway.bind" }));
  return { ...total, findings };
}

const RANK = { info: 0, warning: 1, error: 2 };

function lint(args) {
  const floor = args.includes("--severity-min") ? args[args.indexOf("--severity-min") + 1] : "warning";
  const result = inspect();
  const findings = result.findings.filter((each) => RANK[each.severity] >= RANK[floor]);
  const document = { ...(isNew ? { schemaVersion: 1 } : {}), ok: findings.length === 0, ...result, findings };
  process.stdout.write(`${JSON.stringify(document)}\n`);
  return document.ok ? 0 : 1;
}

function fix() {
  const { config, issues, missing } = readConfig();
  const fatal = issues.filter((issue) => issue.path !== "meta");
  if (missing || !config || fatal.length) {
    process.stderr.write(`Doctor stopped: ${missing ? "no config" : fatal[0]?.message}\n`);
    return 1;
  }
  if (Number.isNaN(stateSchema())) {
    process.stderr.write("Doctor stopped: database disk image is malformed\n");
    return 1;
  }
  const meta = isNew ? { lastTouchedVersion: version } : { lastTouchedVersion: version, lastTouchedAt: new Date(0).toISOString() };
  writeConfig({ ...config, meta });
  writeState();
  process.stdout.write("Doctor complete.\n");
  return 0;
}

export function doctor(args) {
  if (args.includes("--lint")) {
    if (!hasLint) {
      process.stderr.write("error: unknown option '--lint'\n");
      return 1;
    }
    return lint(args);
  }
  if (args.includes("--fix")) return fix();
  if (args.includes("--json")) {
    if (!isNew) {
      process.stderr.write("doctor --json is only supported with --lint or --post-upgrade.\n");
      return 2;
    }
    lint(args);
    return 0;
  }
  process.stdout.write(fs.existsSync(configPath) ? "Doctor complete.\n" : "no config\n");
  return 0;
}
