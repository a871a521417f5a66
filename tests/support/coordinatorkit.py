"""A real coordinator for tests: its own listener with TLS on loopback, its own database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.coordinator import Coordinator
from agent.dialler import Dialler
from agent.join import join
from agent.layout import Layout
from agent.trust import load_trust
from coordinator.bundle import Bundle
from coordinator.ceremony import add_release, begin
from coordinator.cli.client import Client
from coordinator.cli.desk import Desk
from coordinator.home import HomePaths
from coordinator.server import Settings, serve
from scripts.minifleet.ports import free_port
from shared.canonical import sha256_hex
from shared.clock import Clock, SystemClock
from shared.fleet import CoordinatorKeys, JoinToken
from shared.http import session
from shared.messages import Verdict
from shared.metadata import fingerprint, read_root
from shared.release import AgentBuild
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, SyncRequest
from shared.roster import COORDINATOR_HOST, Role
from shared.tls import client_context, unverified_context
from tests.support.tufkit import Operator, manifest_of

LOCK = json.dumps(
    {
        "lockfileVersion": 3,
        "packages": {"node_modules/openclaw": {"version": "2026.9.6", "integrity": "sha512-x"}},
    }
).encode()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Reached:
    """A coordinator that answers. `client` has the first admin's token."""

    root: Path
    url: str
    operator_keys: Operator
    client: Client
    settings: Settings

    async def post(self, path: str, body: object) -> dict[str, Any]:
        return dict(json.loads(await self.client.ask("POST", path, json.dumps(body).encode())))

    async def get(self, path: str) -> dict[str, Any]:
        return dict(json.loads(await self.client.ask("GET", path)))

    async def token(self, ttl_s: float = 60) -> JoinToken:
        return JoinToken.decode(
            str((await self.post("/v1/node-tokens", {"ttl_s": ttl_s}))["token"])
        )

    async def operator(self, role: str, ttl_s: float = 3600) -> dict[str, Any]:
        """A new operator token, as the API answers."""
        asked = {"name": f"a-{role}", "role": role, "ttl_s": ttl_s}
        return await self.post("/v1/operator-tokens", asked)

    async def reply(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        node: Layout | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """What a caller gets who shows this token, this node's certificate, or nothing."""
        context = unverified_context()
        if node is not None:
            context = await asyncio.to_thread(client_context, node.tls.ca, node.tls)
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        shown |= headers or {}
        async with (
            session(context=context, headers=shown) as client,
            client.request(
                method, self.url + path, data=body, server_hostname=COORDINATOR_HOST
            ) as answer,
        ):
            raw = await answer.read()
            value = json.loads(raw) if raw and answer.content_type.endswith("json") else {}
            return Reply(answer.status, dict(answer.headers), value)

    async def publish(self, name: str = "2026.9.6", agent: AgentBuild | None = None) -> str:
        """Sign and publish a release; the agent's wheel, if any, has the content of LOCK. Returns its id."""
        now = SystemClock().now()
        manifest = manifest_of(name, LOCK, now, openclaw="2026.9.6", agent=agent)
        desk = await self.desk()
        published = await asyncio.to_thread(desk.published, self.client)
        bundle = add_release(published, manifest, {sha256_hex(LOCK): LOCK}, now)
        self.operator_keys.sign(bundle, published.root.signed)
        await self.offer(bundle)
        return sha256_hex(manifest.canonical())

    async def desk(self) -> Desk:
        """An operator's desk that trusts this fleet's first root."""
        desk = Desk(self.root / "desk", None, None)
        if not desk.trusts_something():
            root = read_root(await self.client.ask("GET", "/tuf/1.root.json"))
            await asyncio.to_thread(desk.trust, 1, fingerprint(root))
        return desk

    async def offer(self, bundle: Bundle) -> None:
        for sha256, body in bundle.blobs.items():
            await self.client.ask("PUT", f"/v1/blobs/{sha256}", body)
        await self.client.ask("POST", "/v1/trust", bundle.offer().canonical())

    async def sign_fleet(self) -> None:
        keys = CoordinatorKeys.from_value(await self.get("/v1/coordinator"))
        bundle = begin(keys, [self.operator_keys.public], 1, SystemClock().now())
        await self.offer(self.operator_keys.sign(bundle, None))


@dataclass
class Running(Reached):
    """In this process."""

    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def restart(self, clock: Clock | None = None) -> None:
        await self.stop()
        self.task = await start(self.settings, clock)


async def start(settings: Settings, clock: Clock | None = None) -> asyncio.Task[None]:
    """Returns when requests are answered; raises what kept it from that."""
    ready = asyncio.Event()
    work = serve(settings, clock or SystemClock(), lambda url: ready.set())
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    return task


@asynccontextmanager
async def run_coordinator(root: Path, *, signed: bool = True) -> AsyncIterator[Running]:
    port = free_port()
    paths = HomePaths(root / "home")
    settings = Settings(paths, "test", "127.0.0.1", port, None)
    task = await start(settings)
    client = await asyncio.to_thread(Client, paths.client)
    url = f"https://127.0.0.1:{port}"
    made = Running(root, url, Operator("operator"), client, settings, task)
    try:
        if signed:
            await made.sign_fleet()
        yield made
    finally:
        await made.stop()


def secret_of(token: str) -> str:
    """The part of an operator's token that nobody else may see; it may itself contain `_`."""
    return token.split("_", 3)[3]


async def joined(running: Reached, name: str, role: Role = Role.STABLE) -> Layout:
    layout = Layout(running.root / name)
    await join(layout, await running.token(), name, role)
    return layout


async def sync(
    layout: Layout,
    report: NodeReport | None = None,
    messages: list[str] | None = None,
    addresses: str | None = None,
    orders: str | None = None,
    wait_s: float = 0,
    after: SyncAnswer | None = None,
) -> SyncAnswer:
    """`after` is what the node heard before: without it roster and repository are news."""
    trust = await asyncio.to_thread(load_trust, layout)
    said = report or NodeReport(
        node=trust.name, agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
    )
    async with dialling(layout) as dialler:
        coordinator = Coordinator(dialler, trust.identity.url)
        return await coordinator.sync(
            SyncRequest(
                report=said,
                messages=messages or [],
                addresses=addresses,
                orders=orders,
                wait_s=wait_s,
                roster=trust.roster.number if after is not None else (0, 0),
                repository=0 if after is None else after.repository,
            )
        )


@asynccontextmanager
async def dialling(layout: Layout) -> AsyncIterator[Dialler]:
    dialler = Dialler(layout.tls)
    try:
        yield dialler
    finally:
        await dialler.close()
