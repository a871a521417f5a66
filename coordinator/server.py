"""The coordinator's composition root."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web

from coordinator import __version__
from coordinator.api.access import Access
from coordinator.api.joining import Joining
from coordinator.api.releases import ReleasesApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.sync import SyncApi
from coordinator.blobs import Blobs
from coordinator.fleet import FleetState
from coordinator.home import HomePaths, open_home, write_client_config
from coordinator.notifier import Notifier
from coordinator.rollout.engine import Engine
from coordinator.store.database import Database
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.durable import hold_lock
from shared.http import application
from shared.keys import PublicKey
from shared.listener import Server
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
        app = application()
        releases = ReleasesApi(queries, Blobs(paths.blobs), keys.fleet)
        access = Access(fleet, keys.token_sha256)
        for resource in (
            Joining(queries, fleet, keys, url, clock),
            SyncApi(fleet, engine, notifier),
            releases,
            RolloutsApi(queries, fleet, engine, releases, notifier),
        ):
            resource.routes(app, access)
        app.router.add_get("/livez", _livez)
        await asyncio.to_thread(write_client_config, paths, url)
        context = server_context(paths.tls, require_client=False)
        server = Server(app, settings.host, settings.port, context)
        await server.start()
        stack.push_async_callback(server.stop)
        on_ready(url)
        await engine.run()


async def _livez(_: web.Request) -> web.Response:
    return web.json_response({"status": "live", "version": __version__})


async def run_until_signal(
    settings: Settings, clock: Clock, on_ready: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(serve(settings, clock, on_ready), name="coordinator")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
