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
from coordinator.api.access import NOBODY, Access, FailedLogins
from coordinator.api.audit import AuditApi
from coordinator.api.joining import Joining
from coordinator.api.operators import OperatorsApi
from coordinator.api.recorder import Recorder
from coordinator.api.releases import ReleasesApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.routes import Gate
from coordinator.api.sync import SyncApi
from coordinator.api.table import description
from coordinator.audit import Entry
from coordinator.blobs import Blobs
from coordinator.fleet import FleetState
from coordinator.home import HomePaths, open_home, write_client_config
from coordinator.notifier import Notifier
from coordinator.operators import OperatorRole, OperatorToken, TokenText, make_token
from coordinator.rollout.engine import Engine
from coordinator.store.audit import AuditLog
from coordinator.store.database import Database
from coordinator.store.operators import Operators
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.durable import hold_lock, read_secret, write_durable
from shared.http import Server
from shared.keys import PublicKey
from shared.tls import server_context


@dataclass(frozen=True)
class Settings:
    """`url` is what nodes and operators dial; the listener's own address when it is None."""

    paths: HomePaths
    fleet_name: str
    host: str
    port: int
    url: str | None
    release_keys: list[PublicKey]


async def serve(settings: Settings, clock: Clock, on_ready: Callable[[str], None]) -> None:
    """Live until cancelled. `on_ready` is told the address once requests are answered."""
    async with AsyncExitStack() as stack:
        paths = settings.paths
        keys = await asyncio.to_thread(
            open_home, paths, settings.fleet_name, settings.release_keys, clock.now()
        )
        stack.enter_context(hold_lock(paths.lock, what=str(paths.root)))
        database = await Database.open(paths.database)
        stack.push_async_callback(database.close)
        queries = Queries(database)
        notifier = Notifier(await queries.next_number("boot"))
        fleet = FleetState(queries, keys, notifier, clock)
        await fleet.load()
        engine = Engine(queries, fleet, notifier, clock)
        url = settings.url or f"https://{settings.host}:{settings.port}"
        operators, audit = Operators(database), AuditLog(database)
        recorder = Recorder(audit, clock)
        await ensure_admin(operators, recorder, paths.token, clock.now())
        stack.push_async_callback(recorder.settle, all_windows=True)
        releases = ReleasesApi(queries, Blobs(paths.blobs), keys.fleet)
        gate = Gate(Access(fleet, operators, FailedLogins(clock), clock), recorder)
        resources = (
            AboutApi(__version__, description()),
            Joining(queries, fleet, keys, url, clock),
            SyncApi(fleet, engine, notifier),
            releases,
            RolloutsApi(queries, fleet, engine, releases, notifier),
            OperatorsApi(operators, clock),
            AuditApi(audit, recorder),
        )
        await asyncio.to_thread(write_client_config, paths, url)
        context = server_context(paths.tls, require_client=False)
        server = Server(gate.application(resources), settings.host, settings.port, context)
        await server.start()
        stack.push_async_callback(server.stop)
        on_ready(url)
        await engine.run()


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
