"""A coordinator in an attacker's hands: its home, with every online key, and a program of his own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from aiohttp import web

from coordinator.home import HomePaths, open_home
from coordinator.repository import Repository
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.http import application, caller, read_wire
from shared.listener import Server
from shared.metadata import new_targets, sign, to_bytes
from shared.report import SyncRequest
from shared.tls import server_context

ROLLOUT = "0badc0de"


class StolenCoordinator:
    """Answers agents at the stolen address, under the stolen keys, with whatever `target`, `blobs` and
    `tuf` say. Counts what it was asked for."""

    def __init__(self, home: Path, port: int) -> None:
        self._paths, self._port = HomePaths(home), port
        self.target: dict[str, Any] | None = None
        self.blobs: dict[str, bytes] = {}
        self.tuf: dict[str, bytes] = {}
        self.number = 10**6
        self.asked: list[str] = []
        self.reports: dict[str, Any] = {}
        self.clears: list[str] = []
        """Handed to every agent as clears of operators."""
        self.handed = 0
        self._orders = 0

    async def start(self) -> None:
        self.ring = await asyncio.to_thread(open_home, self._paths, "x", 0.0)
        self.repository = await asyncio.to_thread(
            Repository, self._paths.repository, self.ring, SystemClock(), lambda sha256: True
        )
        app = application()
        app.router.add_post("/v1/sync", self._sync)
        app.router.add_get("/tuf/{path:.+}", self._tuf)
        app.router.add_get("/v1/blobs/{sha256}", self._blob)
        context = server_context(self._paths.tls, require_client=False)
        self._server = Server(app, "127.0.0.1", self._port, context)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def order(self, release: str, **more: object) -> None:
        """Every node is to run this release."""
        self._orders += 1
        self.target = {
            "rollout": f"{self._orders:08x}",
            "release": release,
            "set_by": "thief",
            "set_at": 0.0,
            "soak_s": 0.0,
            **more,
        }

    def sign_targets(self, files: dict[str, bytes]) -> None:
        """New targets with these files, under the only keys that the thief has."""
        published = self.repository.targets
        if published is None:
            raise AssertionError("the repository is empty")
        targets = new_targets(files.items(), 2e9, base=published.signed)
        sign(targets, [self.ring.current.online])
        version = targets.signed.version
        for path, raw in files.items():
            self.tuf[f"targets/{sha256_hex(raw)}.{path}"] = raw
        self.tuf[f"{version}.targets.json"] = to_bytes(targets)
        self.repository.targets = targets
        self.repository._sign_online(new_snapshot=True)
        self.number += 1

    async def _sync(self, request: web.Request) -> web.Response:
        asked = await read_wire(request, SyncRequest)
        peer = caller(request)
        node = "" if peer is None else peer.name
        self.reports[node] = asked.report
        target = None
        if self.target is not None:
            target = {"order": f"{self.target['rollout']}:{node}", **self.target}
        await asyncio.sleep(min(asked.wait_s, 0.3))
        self.handed += bool(self.clears)
        return web.json_response(
            {
                "generation": 10**18,
                "target": target,
                "repository": self.number,
                "stored": [],
                "clears": self.clears,
            }
        )

    async def _tuf(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        if path in self.tuf:
            return web.Response(body=self.tuf[path])
        if re.fullmatch(r"[\w./+-]+", path) is None or ".." in path:
            raise web.HTTPNotFound
        return web.Response(body=await asyncio.to_thread(self.repository.read, path))

    async def _blob(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        self.asked.append(sha256)
        if sha256 in self.blobs:
            return web.Response(body=self.blobs[sha256])
        return web.Response(body=await asyncio.to_thread((self._paths.blobs / sha256).read_bytes))
