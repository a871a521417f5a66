"""The agent's door for peers: mutual TLS, nodes of the roster only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from agent.api import Facade
from agent.reading_api import readiness_route
from agent.trust import Trust
from shared.errors import NotFoundError, UntrustedError
from shared.http import Speaker, application, caller, read_body, wire_response
from shared.messages import MAX_MESSAGE_BYTES
from shared.metadata import SERVED
from shared.protocol import SPOKEN, ProtocolRange
from shared.roster import MAX_ROSTER_BYTES
from shared.wire import Wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Messages(Protocol):
    async def receive(self, raw: bytes) -> bytes: ...
    async def events(self) -> list[str]: ...


class Rosters(Protocol):
    def number(self) -> Wire: ...
    def roster(self) -> bytes: ...
    async def receive(self, peer: str, raw: bytes) -> Wire: ...


class Repository(Protocol):
    async def serve(self, path: str) -> bytes: ...


class PeerApi:
    """Who calls is what the certificate says, looked up in the roster of this very moment."""

    def __init__(
        self,
        trust: Trust,
        messages: Messages,
        rosters: Rosters,
        repository: Repository,
        speaks: ProtocolRange = SPOKEN,
    ) -> None:
        self._trust, self._messages = trust, messages
        self._speaker = Speaker(f"the agent of {trust.name}", speaks)
        self._rosters, self._repository = rosters, repository

    def application(self, facade: Facade) -> web.Application:
        app = application(self._speaker)
        for method, path, handler in (
            ("POST", "/v1/peer/messages", self.receive),
            ("GET", "/v1/peer/events", self.events),
            ("GET", "/v1/peer/roster/number", self.roster_number),
            ("GET", "/v1/peer/roster", self.roster),
            ("POST", "/v1/peer/roster", self.take_roster),
            ("GET", "/v1/peer/tuf/{path:.+}", self.tuf),
            ("GET", "/v1/readiness", readiness_route(facade)),
        ):
            app.router.add_route(method, path, self._members_only(handler))
        return app

    def _members_only(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            peer = caller(request)
            own = peer is not None and peer.name == self._trust.name
            if own or not self._trust.roster.admits(peer):
                raise UntrustedError("only nodes of this fleet's roster are answered here")
            return await handler(request)

        return guarded

    async def receive(self, request: web.Request) -> web.Response:
        ack = await self._messages.receive(await read_body(request, limit=MAX_MESSAGE_BYTES))
        return web.Response(body=ack, content_type="application/json")

    async def events(self, _: web.Request) -> web.Response:
        return web.json_response(await self._messages.events())

    async def roster_number(self, _: web.Request) -> web.Response:
        return wire_response(self._rosters.number())

    async def roster(self, _: web.Request) -> web.Response:
        return web.Response(body=self._rosters.roster(), content_type="application/json")

    async def take_roster(self, request: web.Request) -> web.Response:
        raw = await read_body(request, limit=MAX_ROSTER_BYTES)
        return wire_response(await self._rosters.receive(_peer(request), raw))

    async def tuf(self, request: web.Request) -> web.Response:
        """The TUF repository as this node has verified it, for a peer that cannot reach the coordinator."""
        path = request.match_info["path"]
        if SERVED.fullmatch(path) is None:
            raise NotFoundError("there is no such file in a repository")
        raw = await self._repository.serve(path)
        return web.Response(body=raw, content_type="application/octet-stream")


def _peer(request: web.Request) -> str:
    peer = caller(request)
    return "" if peer is None else peer.name
