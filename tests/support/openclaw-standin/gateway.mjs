// The gateway: the HTTP surface of OpenClaw in each of its states, plugins, suspend, and how it ends.
import crypto from "node:crypto";
import http from "node:http";
import path from "node:path";
import fs from "node:fs";
import { pathToFileURL } from "node:url";
import { enabledPlugins } from "./plugins.mjs";
import { busyWith, compareVersions, isNew, readConfig, schema, stateSchema, tasks, version, writeState } from "./settings.mjs";
import { serveSockets } from "./socket.mjs";

const SUSPEND_MS = 120000;
const STARTUP_MS = 150;

export async function runGateway(port) {
  const { config, issues, missing } = readConfig();
  if (missing || issues.length || config.gateway?.mode !== "local") {
    process.stderr.write(`Invalid config: ${issues[0]?.message ?? "gateway.mode is unset"}\n`);
    return 78;
  }
  const touched = config.meta?.lastTouchedVersion;
  if (touched && compareVersions(version, touched) < 0) {
    process.stderr.write(`This OpenClaw binary (${version}) is older than the config last written by ${touched}.\n`);
    return 1;
  }
  const found = stateSchema();
  if (Number.isNaN(found) || found > schema) {
    process.stderr.write(`state has newer schema version ${found}; this build supports ${schema}\n`);
    return isNew ? 78 : 1;
  }
  writeState();
  return new Gateway(config, port).run();
}

class Gateway {
  started = Date.now();
  boot = crypto.randomUUID();
  phase = "starting";
  suspension = null;
  loaded = ["memory-core"];
  errors = [];

  constructor(config, port) {
    this.config = config;
    this.port = port;
  }

  run() {
    return new Promise((resolve) => {
      const server = http.createServer((request, response) => this.answer(request, response));
      serveSockets(server, this);
      server.on("error", (error) => {
        process.stderr.write(`${error.message}\n`);
        resolve(1);
      });
      const stop = () => {
        this.phase = "draining";
        setTimeout(() => resolve(0), isNew ? 50 : 0);
      };
      process.on("SIGTERM", stop);
      process.on("SIGINT", stop);
      server.listen(this.port, "127.0.0.1", () => setTimeout(() => this.startPlugins(), STARTUP_MS));
    });
  }

  async startPlugins() {
    const folders = [...(this.config.plugins?.load?.paths ?? []), ...enabledPlugins(this.config).map((each) => each.folder)];
    for (const folder of folders) {
      let id = path.basename(folder);
      try {
        id = JSON.parse(fs.readFileSync(path.join(folder, "openclaw.plugin.json"), "utf8")).id;
        if (this.config.plugins.entries?.[id]?.enabled !== true) continue;
        const entry = await import(pathToFileURL(path.join(folder, "index.js")));
        const services = [];
        entry.default.register({ registerService: (service) => services.push(service) });
        for (const service of services) await service.start();
        this.loaded.push(id);
      } catch (error) {
        this.errors.push({ id, error: String(error.message ?? error) });
      }
    }
    if (this.phase === "starting") this.phase = "ready";
  }

  failing() {
    if (this.phase === "starting") return ["startup-sidecars"];
    if (this.phase === "draining" || this.suspended()) return ["gateway-draining"];
    return [];
  }

  suspended() {
    if (this.suspension && this.suspension.expiresAtMs < Date.now()) this.suspension = null;
    return this.suspension !== null;
  }

  answer(request, response) {
    const json = (status, value) => {
      response.writeHead(status, { "content-type": "application/json; charset=utf-8" });
      response.end(JSON.stringify(value));
    };
    const uptimeMs = Date.now() - this.started;
    const url = request.url.split("?")[0];
    if (url === "/healthz" || url === "/health") return json(200, { ok: true, status: "live" });
    if (url === "/readyz" || url === "/ready") {
      const failing = this.failing();
      return json(failing.length ? 503 : 200, { ready: !failing.length, failing, uptimeMs, eventLoop: { degraded: false, delayP99Ms: 20.3 } });
    }
    if (isNew && (url === "/startupz" || url === "/startup")) {
      const status = this.phase === "starting" ? "starting" : this.failing().length ? "draining" : "started";
      const pending = status === "starting" ? { pendingReason: "startup-sidecars" } : {};
      return json(status === "started" ? 200 : 503, { ok: status === "started", status, version, uptimeMs, ...pending });
    }
    if (url === "/standin/rpc" && request.headers.authorization === `Bearer ${this.token()}`) {
      let body = "";
      request.on("data", (chunk) => (body += chunk));
      request.on("end", () => json(200, this.rpc(JSON.parse(body))));
      return undefined;
    }
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    return response.end("<!doctype html><title>OpenClaw Control</title>");
  }

  token() {
    return this.config.gateway?.auth?.token;
  }

  greeting() {
    return { server: { version, bootId: this.boot, connId: crypto.randomUUID() }, snapshot: {} };
  }

  /** What a suspended gateway answers to everything that is not about suspension. */
  request(method, params) {
    if (!this.suspended()) return this.rpc({ method, params });
    const details = { method, reason: "gateway-suspending", phase: "prepared" };
    const message = `${method} unavailable during gateway suspension`;
    return { ok: false, error: { code: "UNAVAILABLE", message, retryable: true, retryAfterMs: 1000, details } };
  }

  rpc({ method, params = {} }) {
    const idle = { queueSize: 0, pendingReplies: 0, embeddedRuns: 0, cronRuns: 0, activeTasks: 0, totalActive: 0 };
    switch (method) {
      case "health":
        return { ok: true, ts: Date.now(), plugins: { loaded: this.loaded, errors: this.errors }, channels: {}, channelOrder: [] };
      case "status":
        return { runtimeVersion: version, tasks: { total: 0, active: 0, byStatus: { queued: 0, running: 0 } } };
      case "tasks.list":
        return { tasks: tasks(params.status, params.limit ?? 100) };
      case "gateway.restart.preflight":
        if (busyWith().length) return { safe: false, counts: { ...idle, totalActive: 1 }, blockers: busyWith(), summary: "busy" };
        return { safe: true, counts: idle, blockers: [], summary: "safe to restart now" };
      case "suspend": {
        if (this.suspended() && this.suspension.request !== params.request) {
          return { ok: false, error: { type: "gateway_request_error", code: "UNAVAILABLE", details: { reason: "gateway-suspension-conflict" } } };
        }
        if (busyWith().length) return { status: "busy", retryAfterMs: 1000, blockers: busyWith() };
        const id = this.suspension?.id ?? crypto.randomUUID();
        this.suspension = { id, request: params.request, expiresAtMs: Date.now() + SUSPEND_MS };
        return { status: "ready", suspensionId: id, expiresAtMs: this.suspension.expiresAtMs, activeCount: 0, blockers: [], requestId: params.request };
      }
      case "resume": {
        const resumed = this.suspended() && this.suspension.id === params.id;
        if (resumed) this.suspension = null;
        return { ok: true, status: "running", resumed };
      }
      case "gateway-status":
        return { rpc: { ok: true, server: { version, bootId: this.boot } } };
      default:
        return { ok: false, error: { type: "gateway_request_error", code: "INVALID_REQUEST", message: `unknown method: ${method}` } };
    }
  }
}
