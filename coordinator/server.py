"""The coordinator's composition root."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from coordinator import __version__
from coordinator.api.about import AboutApi
from coordinator.api.access import FAILURE_WINDOW_S, MAX_FAILURES, Access
from coordinator.api.audit import AuditApi
from coordinator.api.cluster import ClusterApi
from coordinator.api.gate import Gate
from coordinator.api.idempotency import Replays
from coordinator.api.joining import Joining
from coordinator.api.operators import OperatorsApi
from coordinator.api.pagelinks import PageLinksApi
from coordinator.api.recorder import Recorder
from coordinator.api.reds import RedsApi
from coordinator.api.releases import ReleasesApi
from coordinator.api.routes import Resource
from coordinator.api.sync import SyncApi
from coordinator.api.table import description
from coordinator.api.trust import TrustApi
from coordinator.blobs import Blobs
from coordinator.books import Books
from coordinator.capabilities.catalogue import Catalogue
from coordinator.firstadmin import ensure_admin
from coordinator.fleet import FleetState
from coordinator.home import HomePaths, open_home, write_client_config, write_tls
from coordinator.movement import Movement
from coordinator.notifier import Notifier
from coordinator.page.compose import add_page
from coordinator.page.sessions import Doorkeeper
from coordinator.repository import Repository
from coordinator.sealing import Sealer
from coordinator.store.audit import AuditLog
from coordinator.store.database import Database
from coordinator.store.evidence import EvidenceStore
from coordinator.store.heartbeats import Heartbeats
from coordinator.store.nodes import NodeQueries
from coordinator.store.operators import Operators
from coordinator.store.queries import Queries
from coordinator.store.replays import ReplayQueries
from coordinator.store.sessions import SessionStore
from coordinator.telling import Telling
from shared.clock import Clock
from shared.connection import Limits
from shared.durable import hold_lock, read_secret
from shared.lean import give_back, one_heap
from shared.listener import Server, max_connections
from shared.protocol import SPOKEN, ProtocolRange
from shared.ratelimit import RateLimit
from shared.tls import server_context

FRESHEN_EVERY_S = 60.0
GC_EVERY, GC_OLDER = 20_000, 20
"""Objects, and collections of the younger. Python's own 700 and 10 look at everything that thousands of waiting
requests consist of again and again, which takes as much time as answering them."""
CONNECTIONS = 12_000
"""Each node has two: one waits for news, one tells what is new there."""


@dataclass(frozen=True)
class Settings:
    """`url` is what nodes and operators dial; the listener's own address when it is None."""

    paths: HomePaths
    fleet_name: str
    host: str
    port: int
    url: str | None
    speaks: ProtocolRange = SPOKEN
    connections: int = CONNECTIONS


class Coordinator:
    """Wired by `open` on an exit stack; `run` lives until it is cancelled."""

    def __init__(self, settings: Settings, clock: Clock, stack: AsyncExitStack) -> None:
        self._settings, self._clock, self._stack = settings, clock, stack
        self.url = settings.url or f"https://{settings.host}:{settings.port}"

    async def open(self) -> None:
        paths, clock = self._settings.paths, self._clock
        await self._open_home()
        database = await Database.open(paths.database)
        self._stack.push_async_callback(database.close)
        books = await self._open_parts(database)
        operators, audit = Operators(database), AuditLog(database)
        recorder, sessions = Recorder(audit, clock), SessionStore(database)
        await ensure_admin(operators, recorder, paths.token, clock.now())
        self._stack.push_async_callback(recorder.settle, all_windows=True)
        resources: tuple[Resource, ...] = (
            AboutApi(__version__, description()),
            ClusterApi(__version__, self._settings.speaks, self._fleet, await database.revision()),
            *self._resources(database, books),
            OperatorsApi(operators, clock),
            AuditApi(audit, recorder),
            PageLinksApi(sessions, clock),
            *await books.resources(__version__, self._fleet, self._movement.engine),
        )
        failures = RateLimit(clock, failures=MAX_FAILURES, window_s=FAILURE_WINDOW_S)
        access = Access(self._fleet, operators, failures, clock)
        sealer = Sealer(await asyncio.to_thread(read_secret, paths.seal))
        gate = Gate(access, recorder, Replays(ReplayQueries(database), sealer, clock))
        app = gate.application(resources, self._settings.speaks)
        doorkeeper = Doorkeeper(sessions, access, recorder, clock)
        await add_page(app, gate, resources, doorkeeper, clock, self._ring.current.name)
        await asyncio.to_thread(write_client_config, paths, self.url)
        self._server = Server(
            app,
            self._settings.host,
            self._settings.port,
            server_context(paths.tls, require_client=False),
            Limits(connections=max_connections(self._settings.connections)),
        )

    async def _open_home(self) -> None:
        paths, clock = self._settings.paths, self._clock
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stack.enter_context(hold_lock(paths.lock, what=str(paths.root)))
        self._ring = await asyncio.to_thread(
            open_home, paths, self._settings.fleet_name, clock.now()
        )
        blobs = Blobs(paths.blobs)
        self._repository = await asyncio.to_thread(
            Repository, paths.repository, self._ring, clock, blobs.has
        )
        self._releases = ReleasesApi(self._repository, blobs)
        self._catalogue = Catalogue(self._repository, blobs.has)
        await self._write_tls()

    async def _open_parts(self, database: Database) -> Books:
        """Everything is read from its tables before the first request is answered."""
        clock, queries, evidence = self._clock, Queries(database), EvidenceStore(database)
        self._notifier = Notifier(await queries.next_number("boot", int(clock.now() * 1000)))
        self._nodes = NodeQueries(database)
        books = await Books.open(
            database, self._repository, self._nodes, clock, self._notifier, self._live_nodes
        )
        settings = books.settings.current
        self._stack.push_async_callback(queries.close)
        heartbeats = Heartbeats(self._nodes)
        self._stack.push_async_callback(heartbeats.close)
        self._fleet = FleetState(
            queries,
            self._nodes,
            heartbeats,
            self._ring,
            self._repository,
            self._notifier,
            clock,
            evidence,
            books.upgrades,
        )
        await self._fleet.load()
        self._movement = Movement(
            database,
            self._fleet,
            self._notifier,
            clock,
            self._settings.speaks,
            settings,
            self._releases.find,
            books.drains.count,
            self._catalogue,
        )
        await self._movement.load()
        self._telling = Telling(
            database,
            self._repository,
            self._ring,
            self._fleet,
            self._notifier,
            clock,
            settings,
            evidence,
        )
        await self._telling.open(self._stack, self._settings.paths, self.url)
        return books

    def _resources(self, database: Database, books: Books) -> tuple[Resource, ...]:
        fleet, repository, notifier = self._fleet, self._repository, self._notifier
        movement = self._movement
        return (
            TrustApi(repository, self._ring, self.url, self._fleet_changed, notifier.notify),
            Joining(self._nodes, fleet, self._ring, repository, self.url, self._clock),
            SyncApi(
                fleet,
                movement.engine,
                repository,
                notifier,
                movement.shares,
                movement.orders,
                books.drains,
            ),
            self._releases,
            *movement.resources(),
            RedsApi(fleet.known_reds, fleet, repository, notifier),
            *self._telling.resources(),
        )

    async def run(self, on_ready: Callable[[str], None]) -> None:
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)
        on_ready(self.url)
        async with asyncio.TaskGroup() as group:
            for name, work in {**self._movement.work(), **self._telling.work()}.items():
                group.create_task(work, name=name)
            group.create_task(self._keep_fresh(), name="timestamp")

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.to_thread(self._repository.keep_fresh)
            await self._clock.sleep(FRESHEN_EVERY_S)

    def _live_nodes(self) -> list[str]:
        return [node.name for node in self._fleet.roster.live()]

    async def _fleet_changed(self) -> None:
        """Other keys or authorities count from here on: a new roster, and a listener under them."""
        await self._fleet.publish_roster()
        await self._write_tls()
        self._server.renew(server_context(self._settings.paths.tls, require_client=False))

    async def _write_tls(self) -> None:
        keys, fleet = self._ring.current, self._repository.fleet
        now = self._clock.now()
        await asyncio.to_thread(write_tls, self._settings.paths, keys, fleet, self.url, now)


async def serve(settings: Settings, clock: Clock, on_ready: Callable[[str], None]) -> None:
    """Live until cancelled. `on_ready` is told the address once requests are answered."""
    async with AsyncExitStack() as stack:
        coordinator = Coordinator(settings, clock, stack)
        await coordinator.open()
        await coordinator.run(on_ready)


async def run_until_signal(
    settings: Settings, clock: Clock, on_ready: Callable[[str], None]
) -> None:
    one_heap()
    loop = asyncio.get_running_loop()

    def ready(url: str) -> None:
        gc.collect()
        gc.freeze()
        give_back()
        gc.set_threshold(GC_EVERY, GC_OLDER, GC_OLDER)
        on_ready(url)

    work = asyncio.create_task(serve(settings, clock, ready), name="coordinator")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
