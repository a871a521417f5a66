// The gateway's WebSocket as far as Rollcall uses it (RFC 6455): one small frame after the other, text only.
import crypto from "node:crypto";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_FRAME = 1 << 20;
const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const POLICY = 1008;

function frame(opcode, payload) {
  const head =
    payload.length < 126
      ? Buffer.from([0x80 | opcode, payload.length])
      : Buffer.from([0x80 | opcode, 127, 0, 0, 0, 0, ...new Uint8Array(new Uint32Array([payload.length]).buffer).reverse()]);
  return Buffer.concat([head, payload]);
}

/** One whole frame of a client from the front of `data`: `{opcode, payload, used}`; null when more is needed. */
function readFrame(data) {
  if (data.length < 2) return null;
  let length = data[1] & 0x7f;
  let at = 2;
  if (length === 126 && data.length >= 4) {
    length = data.readUInt16BE(2);
    at = 4;
  } else if (length === 127 && data.length >= 10) {
    length = Number(data.readBigUInt64BE(2));
    at = 10;
  } else if (length > 125) {
    return null;
  }
  if (length > MAX_FRAME) throw new Error("frame too large");
  if (data.length < at + 4 + length) return null;
  const mask = data.subarray(at, at + 4);
  const payload = Buffer.from(data.subarray(at + 4, at + 4 + length)).map((byte, index) => byte ^ mask[index % 4]);
  return { opcode: data[0] & 0x0f, payload, used: at + 4 + length };
}

class Connection {
  greeted = false;
  data = Buffer.alloc(0);

  constructor(gateway, socket) {
    this.gateway = gateway;
    this.socket = socket;
    socket.on("data", (chunk) => this.take(chunk));
    socket.on("error", () => socket.destroy());
    this.send({ type: "event", event: "connect.challenge", payload: { nonce: crypto.randomUUID(), ts: Date.now() } });
  }

  send(value) {
    this.socket.write(frame(TEXT, Buffer.from(JSON.stringify(value))));
  }

  close(code, reason) {
    this.socket.end(frame(CLOSE, Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)])));
  }

  take(chunk) {
    this.data = Buffer.concat([this.data, chunk]);
    for (let found = readFrame(this.data); found; found = readFrame(this.data)) {
      this.data = this.data.subarray(found.used);
      if (found.opcode === TEXT) this.answer(JSON.parse(found.payload.toString()));
      else if (found.opcode === PING) this.socket.write(frame(PONG, found.payload));
      else if (found.opcode === CLOSE) return this.close(1000, "");
    }
    return undefined;
  }

  answer({ id, method, params = {} }) {
    if (!this.greeted) return this.greet(id, params);
    const result = this.gateway.request(method, params);
    const ok = result.ok !== false;
    return this.send({ type: "res", id, ok, ...(ok ? { payload: result } : { error: result.error }) });
  }

  greet(id, params) {
    const refuse = (message, code = "INVALID_REQUEST") => {
      this.send({ type: "res", id, ok: false, error: { code, message } });
      this.close(code === "UNAVAILABLE" ? 1013 : POLICY, message);
    };
    if (this.gateway.phase === "starting") return refuse("gateway starting", "UNAVAILABLE");
    const { id: client, mode } = params.client ?? {};
    if (client !== "cli" || mode !== "cli") return refuse("invalid connect params: at /client/id: must be equal to one of the allowed values");
    if (!(params.minProtocol <= 4 && params.maxProtocol >= 4)) return refuse("protocol mismatch");
    if (params.auth?.token !== this.gateway.token()) return refuse("unauthorized: gateway token mismatch");
    this.greeted = true;
    const { server, snapshot } = this.gateway.greeting();
    const auth = { role: "operator", scopes: params.scopes ?? [] };
    const policy = { maxPayload: 26214400, maxBufferedBytes: 52428800, tickIntervalMs: 30000 };
    this.send({ type: "res", id, ok: true, payload: { type: "hello-ok", protocol: 4, server, features: { methods: [], events: [] }, snapshot, auth, policy } });
    return this.send({ type: "event", event: "health", payload: this.gateway.rpc({ method: "health" }) });
  }
}

/** Takes upgrades of `server` for `gateway`. */
export function serveSockets(server, gateway) {
  server.on("upgrade", (request, socket) => {
    const key = request.headers["sec-websocket-key"];
    if (!key) return socket.destroy();
    const accept = crypto.createHash("sha1").update(key + GUID).digest("base64");
    const head = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Accept: ${accept}`];
    socket.write(`${head.join("\r\n")}\r\n\r\n`);
    return new Connection(gateway, socket);
  });
}
