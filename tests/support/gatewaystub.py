"""A gateway on loopback that says what a test puts into it: over HTTP, and over its WebSocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

TOKEN = "a-token-for-tests-only-0123456789"


class GatewayStub:
    """`answers` are payloads by method, and a payload with `error` is refused with it. `calls` are the requests
    that came, `connections` how many sockets they came over."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.ready: tuple[int, bytes] = (200, b'{"ready":true,"failing":[],"uptimeMs":1}')
        self.token = TOKEN
        self.scopes = ["operator.read"]
        self.version = "2026.9.6"
        self.challenge: dict[str, Any] = {"type": "event", "event": "connect.challenge"}
        self.refusal: dict[str, Any] | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.calls: list[str] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> GatewayStub:
        app = web.Application()
        app.router.add_get("/", self._socket)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hold.set()
        await self._runner.cleanup()

    def configure(self, state: Path, **auth: Any) -> None:
        """Writes the configuration that goes with it."""
        state.mkdir(parents=True, exist_ok=True)
        settings = {"gateway": {"auth": auth or {"mode": "token", "token": TOKEN}}}
        (state / "openclaw.json").write_text(f"// JSON5\n{json.dumps(settings)}")

    async def _readyz(self, request: web.Request) -> web.Response:
        status, body = self.ready
        return web.Response(status=status, body=body, content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=0.1, max_msg_size=0)
        await socket.prepare(request)
        self.connections += 1
        await self.hold.wait()
        await socket.send_json(self.challenge)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            await self._answer(socket, json.loads(message.data))
        return socket

    async def _answer(self, socket: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        method = frame["method"]
        self.calls.append(method)
        if method == "connect":
            payload = self._greeting(frame["params"])
        else:
            payload = self.answers.get(method, {"error": {"message": f"unknown method {method}"}})
        await socket.send_json({"type": "event", "event": "health", "payload": {}})
        ok = not (isinstance(payload, dict) and "error" in payload)
        body = {"payload": payload} if ok else payload
        await socket.send_json({"type": "res", "id": frame["id"], "ok": ok, **body})
        if method == "connect" and not ok:
            await socket.close(code=1008)

    def _greeting(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.refusal is not None:
            return {"error": self.refusal}
        if params.get("auth", {}).get("token") != self.token:
            said = f"token mismatch: {params.get('auth')}"
            return {"error": {"code": "INVALID_REQUEST", "message": said}}
        server = {"version": self.version}
        return {"type": "hello-ok", "server": server, "auth": {"scopes": self.scopes}}
