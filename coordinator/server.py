"""The coordinator's composition root."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from coordinator import __version__
from coordinator.api.about import AboutApi
from coordinator.api.access import FAILURE_WINDOW_S, MAX_FAILURES, NOBODY, Access
from coordinator.api.alerts import AlertsApi
from coordinator.api.audit import AuditApi
from coordinator.api.cluster import ClusterApi
from coordinator.api.joining import Joining
from coordinator.api.operators import OperatorsApi
from coordinator.api.recorder import Recorder
from coordinator.api.reds import RedsApi
from coordinator.api.releases import ReleasesApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.routes import Gate, Resource
from coordinator.api.sync import SyncApi
from coordinator.api.table import description
from coordinator.api.trust import TrustApi
from coordinator.audit import Entry
from coordinator.blobs import Blobs
from coordinator.fleet import FleetState
from coordinator.home import HomePaths, open_home, write_client_config, write_tls
from coordinator.notifier import Notifier
from coordinator.operators import OperatorRole, OperatorToken, TokenText, make_token
from coordinator.repository import Repository
from coordinator.rollout.engine import Engine
from coordinator.store.audit import AuditLog
from coordinator.store.database import Database
from coordinator.store.nodes import NodeQueries
from coordinator.store.operators import Operators
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.durable import hold_lock, read_secret, write_durable
from shared.listener import Server
from shared.protocol import SPOKEN, ProtocolRange
from shared.ratelimit import RateLimit
from shared.tls import server_context

FRESHEN_EVERY_S = 60.0


@dataclass(frozen=True)
class Settings:
    """`url` is what nodes and operators dial; the listener's own address when it is None."""

    paths: HomePaths
    fleet_name: str
    host: str
    port: int
    url: str | None
    speaks: ProtocolRange = SPOKEN


class Coordinator:
    """Wired by `open` on an exit stack; `run` lives until it is cancelled."""

    def __init__(self, settings: Settings, clock: Clock, stack: AsyncExitStack) -> None:
        self._settings, self._clock, self._stack = settings, clock, stack
        self.url = settings.url or f"https://{settings.host}:{settings.port}"

    async def open(self) -> None:
        paths, clock, stack = self._settings.paths, self._clock, self._stack
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(hold_lock(paths.lock, what=str(paths.root)))
        self._ring = await asyncio.to_thread(
            open_home, paths, self._settings.fleet_name, clock.now()
        )
        blobs = Blobs(paths.blobs)
        self._repository = await asyncio.to_thread(
            Repository, paths.repository, self._ring, clock, blobs.has
        )
        await self._write_tls()
        database = await Database.open(paths.database)
        stack.push_async_callback(database.close)
        queries, nodes = Queries(database), NodeQueries(database)
        self._notifier = Notifier(await queries.next_number("boot", int(clock.now() * 1000)))
        self._fleet = FleetState(
            queries, nodes, self._ring, self._repository, self._notifier, clock
        )
        await self._fleet.load()
        self._engine = Engine(queries, self._fleet, self._notifier, clock, self._settings.speaks)
        operators, audit = Operators(database), AuditLog(database)
        recorder = Recorder(audit, clock)
        await ensure_admin(operators, recorder, paths.token, clock.now())
        stack.push_async_callback(recorder.settle, all_windows=True)
        releases = ReleasesApi(self._repository, blobs)
        resources: tuple[Resource, ...] = (
            AboutApi(__version__, description()),
            ClusterApi(__version__, self._settings.speaks, self._fleet),
            TrustApi(
                self._repository, self._ring, self.url, self._fleet_changed, self._notifier.notify
            ),
            Joining(nodes, self._fleet, self._ring, self._repository, self.url, clock),
            SyncApi(self._fleet, self._engine, self._repository, self._notifier),
            releases,
            RolloutsApi(queries, self._fleet, self._engine, releases, self._notifier),
            RedsApi(self._fleet.known_reds, self._fleet, self._repository, self._notifier),
            OperatorsApi(operators, clock),
            AlertsApi(self._repository, self._fleet),
            AuditApi(audit, recorder),
        )
        failures = RateLimit(clock, failures=MAX_FAILURES, window_s=FAILURE_WINDOW_S)
        gate = Gate(Access(self._fleet, operators, failures, clock), recorder)
        await asyncio.to_thread(write_client_config, paths, self.url)
        self._server = Server(
            gate.application(resources, self._settings.speaks),
            self._settings.host,
            self._settings.port,
            server_context(paths.tls, require_client=False),
        )

    async def run(self, on_ready: Callable[[str], None]) -> None:
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)
        on_ready(self.url)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._engine.run(), name="rollouts")
            group.create_task(self._keep_fresh(), name="timestamp")

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.to_thread(self._repository.keep_fresh)
            await self._clock.sleep(FRESHEN_EVERY_S)

    async def _fleet_changed(self) -> None:
        """Other keys or authorities count from here on: a new roster, and a listener under them."""
        await self._fleet.publish_roster()
        await self._write_tls()
        self._server.renew(server_context(self._settings.paths.tls, require_client=False))

    async def _write_tls(self) -> None:
        keys, fleet = self._ring.current, self._repository.fleet
        now = self._clock.now()
        await asyncio.to_thread(write_tls, self._settings.paths, keys, fleet, now)


async def serve(settings: Settings, clock: Clock, on_ready: Callable[[str], None]) -> None:
    """Live until cancelled. `on_ready` is told the address once requests are answered."""
    async with AsyncExitStack() as stack:
        coordinator = Coordinator(settings, clock, stack)
        await coordinator.open()
        await coordinator.run(on_ready)


async def ensure_admin(operators: Operators, recorder: Recorder, file: Path, now: float) -> None:
    """There is always somebody who can make tokens: the first start takes over the token in `file`,
    which a home from before tokens had roles has too; a start at which every admin's token has expired
    or is revoked makes a new one and writes it there. Whoever holds the home holds the fleet anyway.
    """
    if await operators.has_admin(now):
        return
    reason = "the first start"
    if await operators.all():
        reason = "no admin's token was valid any more"
        await asyncio.to_thread(write_durable, file, make_token().encode())
    text = TokenText.parse((await asyncio.to_thread(read_secret, file)).decode().strip())
    token = OperatorToken(
        id=text.id, name="first", role=OperatorRole.ADMIN, created=now, created_by="coordinator"
    )
    await operators.add(token, text.sha256)
    await recorder.record(
        Entry(
            who="coordinator",
            role=NOBODY,
            address=NOBODY,
            action="admin token at start",
            subject=token.who,
            status=201,
            detail=reason,
        )
    )


async def run_until_signal(
    settings: Settings, clock: Clock, on_ready: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(serve(settings, clock, on_ready), name="coordinator")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
