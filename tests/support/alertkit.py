"""Receivers of alerts for tests: one on loopback that records and misbehaves on request, and the real Alertmanager."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from coordinator.alerts.config import AlertsConfig, load_alerts_config
from coordinator.alerts.formats import Origin
from coordinator.alerts.model import Alert, AlertState, Finding, Severity
from scripts.minifleet.ports import free_port
from shared.durable import write_durable

ORIGIN = Origin("f" * 64, "test", "https://127.0.0.1:1")
SECRET = b"0123456789abcdef0123456789abcdef"


HOOK = (
    '[[channel]]\nname = "ops"\ntype = "webhook"\nurl = "{url}/hook"\nsecret_file = "ops.secret"\n'
)


def configured(home: Path, text: str) -> AlertsConfig:
    write_durable(home / "ops.secret", SECRET + b"\n")
    write_durable(home / "alerts.toml", text.encode())
    return load_alerts_config(home / "alerts.toml")


def firing(rule: str = "red-open", *, id_: str = "0000000a", now: float = 1.8e9) -> Alert:
    found = Finding(rule, "canary", Severity.CRITICAL, "canary is red", now, "why")
    alert = Alert.of(found, id_, now)
    return alert.with_(state=AlertState.FIRING, began=now, told={"am": Severity.CRITICAL})


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answers` are the statuses to come, 202 after them; a 0 never answers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hangs: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append(Received(request.path, dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 202
        if status == 0:
            self.hangs.set()
            await asyncio.sleep(3600)
        if status == 302:
            return web.Response(status=302, headers={"Location": f"{self.url}/elsewhere"})
        if status == 299:
            return web.Response(body=b"x" * (1 << 20))
        return web.Response(status=status)

    async def until(self, number: int) -> list[Received]:
        async with asyncio.timeout(60):
            while len(self.received) < number:
                await asyncio.sleep(0.01)
        return self.received


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port(), ssl_context=tls)
    await site.start()
    receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Alertmanager:
    url: str
    client: aiohttp.ClientSession

    async def alerts(self) -> list[dict[str, Any]]:
        """Those that it holds to be firing."""
        async with self.client.get(f"{self.url}/api/v2/alerts") as answer:
            return list(await answer.json())


@asynccontextmanager
async def real_alertmanager(root: Path) -> AsyncIterator[Alertmanager]:
    """On loopback, without a cluster and without receivers of its own."""
    config, port = root / "alertmanager.yml", free_port()
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    with (root / "alertmanager.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "prometheus-alertmanager",
            f"--config.file={config}",
            f"--storage.path={root / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            stdout=output,
            stderr=output,
        )
        try:
            async with aiohttp.ClientSession(trust_env=False) as client:
                made = Alertmanager(f"http://127.0.0.1:{port}", client)
                await _ready(made, root)
                yield made
        finally:
            process.terminate()
            await process.wait()


async def _ready(made: Alertmanager, root: Path) -> None:
    for _ in range(300):
        try:
            async with made.client.get(f"{made.url}/-/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError((root / "alertmanager.log").read_text())
