"""The doors of the agent: for peers, for who reads, for load balancers, and the private one."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiohttp import web

from agent.api import Controls, control_app
from agent.company import Company
from agent.config import AgentConfig
from agent.feed import Feed
from agent.layout import Layout
from agent.loadbalancing import LoadBalancing
from agent.membership import Membership
from agent.peer_api import PeerApi
from agent.reading_api import readiness_route, reading_app
from agent.reds_api import add_reds
from agent.trust import Trust
from shared.errors import RollcallError
from shared.listener import Server
from shared.tls import server_context


class Doors:
    """Opened on the daemon's exit stack. `urls` says where who reads finds what; it is filled by `open`."""

    def __init__(
        self,
        config: AgentConfig,
        layout: Layout,
        facade: Controls,
        feed: Feed,
        stack: AsyncExitStack,
    ) -> None:
        self._config, self._layout, self._facade = config, layout, facade
        self._feed, self._stack = feed, stack
        self.urls: dict[str, str] = {}

    async def open(
        self, trust: Trust, fleet: Membership, company: Company, balancing: LoadBalancing
    ) -> int:
        """All of them; the port that peers dial."""
        api, facade = self._config.api, self._facade
        for_peers = await self._open_to_peers(trust, fleet, company)
        readers = Server(add_reds(reading_app(facade), self._feed), api.host, api.port)
        await readers.start()
        self._stack.push_async_callback(readers.stop)
        self.urls["readiness"] = f"http://{api.host}:{readers.port}/v1/readiness"
        self.urls |= await balancing.open(self._stack, company.monitor.document, facade.weight)
        await self.open_socket()
        return for_peers

    async def _open_to_peers(self, trust: Trust, fleet: Membership, company: Company) -> int:
        """What is said goodbye over is ended before the door that waits for it."""
        peers = self._config.peers
        api = PeerApi(
            trust,
            company.mesh,
            fleet.gossip,
            fleet.releases,
            company.monitor.published,
            more=company.operations(),
        )
        fleet.links.open(api.answers, on_up=company.link_up, on_lost=company.link_lost)
        door = Server(
            api.application(fleet.links.accept),
            peers.host,
            peers.port,
            server_context(self._layout.tls, require_client=True),
        )
        await door.start()
        self._stack.push_async_callback(door.stop)
        self._stack.push_async_callback(fleet.links.close)
        self._stack.push_async_callback(company.leave)
        fleet.door = door
        await company.listen(peers.host, door.port)
        return door.port

    async def open_socket(self) -> None:
        """The private one, which acts."""
        app = add_reds(control_app(self._facade, readiness_route(self._facade)), self._feed)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        path = self._layout.socket
        path.unlink(missing_ok=True)
        try:
            await web.UnixSite(runner, str(path)).start()
        except OSError as error:
            raise RollcallError(f"cannot open {path}: {error}") from error
        path.chmod(0o600)
        self._stack.callback(path.unlink, missing_ok=True)
