"""The agent's door for peers: mutual TLS, nodes of the roster only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from aiohttp import web

from agent.peers.asked import Operation, Operations
from agent.peers.link import Answer
from agent.peers.links import PATH as LINK
from agent.peers.relay import MESSAGES
from agent.readiness.publishing import Published
from agent.reading_api import MAX_NONCE
from agent.trust import Trust
from shared.errors import BadInputError, NotFoundError, TooLargeError, UntrustedError
from shared.http import Speaker, application, caller, read_body
from shared.messages import MAX_MESSAGE_BYTES
from shared.metadata import SERVED
from shared.protocol import SPOKEN, ProtocolRange
from shared.readiness import SeenReadiness
from shared.roster import MAX_ROSTER_BYTES
from shared.wire import Wire

TUF = "/v1/peer/tuf/"

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
    """Who calls is what the certificate says, looked up in the roster of this very moment. Every operation can be
    asked for by a request of its own, and over a link."""

    def __init__(
        self,
        trust: Trust,
        messages: Messages,
        rosters: Rosters,
        repository: Repository,
        readiness: Callable[[], Published],
        speaks: ProtocolRange = SPOKEN,
        *,
        more: Iterable[Operations] = (),
    ) -> None:
        """`more` is what the other parts of the agent answer to."""
        self._trust, self._messages, self._readiness = trust, messages, readiness
        self._speaker = Speaker(f"the agent of {trust.name}", speaks)
        self._rosters, self._repository = rosters, repository
        self._operations: dict[tuple[str, str], tuple[Operation, int]] = {
            ("POST", MESSAGES): (self._receive, MAX_MESSAGE_BYTES),
            ("GET", "/v1/peer/events"): (self._events, 0),
            ("GET", "/v1/peer/roster/number"): (self._roster_number, 0),
            ("GET", "/v1/peer/roster"): (self._roster, 0),
            ("POST", "/v1/peer/roster"): (self._take_roster, MAX_ROSTER_BYTES),
            ("GET", "/v1/readiness"): (self._show_readiness, 0),
            ("GET", "/v1/peer/readiness"): (self._show_changed, 0),
        }
        for operations in more:
            self._operations |= operations

    def application(
        self, accept: Callable[[web.Request, str], Awaitable[web.StreamResponse]]
    ) -> web.Application:
        """`accept` takes over a request for a link."""
        app = application(self._speaker)
        for (method, path), (operation, limit) in self._operations.items():
            app.router.add_route(method, path, self._route(operation, limit))
        app.router.add_get(f"{TUF}{{path:.+}}", self._route(self._tuf, 0))

        async def link(request: web.Request) -> web.StreamResponse:
            return await accept(request, self._member(request))

        app.router.add_get(LINK, link)
        return app

    def _route(self, operation: Operation, limit: int) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            peer = self._member(request)
            body = await read_body(request, limit=limit)
            params = {**request.query, **request.match_info}
            answer = await operation(peer, params, body)
            return web.Response(body=answer, content_type="application/json")

        return handle

    def _member(self, request: web.Request) -> str:
        peer = caller(request)
        if peer is None or peer.name == self._trust.name or not self._trust.roster.admits(peer):
            raise UntrustedError("only nodes of this fleet's roster are answered here")
        return peer.name

    def answers(self, peer: str) -> Answer:
        """What this peer may ask over its link."""

        async def answer(method: str, path: str, params: Mapping[str, str], body: bytes) -> bytes:
            if peer not in self._trust.peer_names():
                raise UntrustedError("only nodes of this fleet's roster are answered here")
            if method == "GET" and path.startswith(TUF):
                return await self._tuf(peer, {"path": path.removeprefix(TUF)}, body)
            operation, limit = self._operations.get((method, path), (None, 0))
            if operation is None:
                raise NotFoundError(f"no {method} {path}")
            if len(body) > limit:
                raise TooLargeError(f"a body of more than {limit} bytes")
            return await operation(peer, params, body)

        return answer

    async def _receive(self, _: str, __: Mapping[str, str], body: bytes) -> bytes:
        return await self._messages.receive(body)

    async def _events(self, *_: object) -> bytes:
        return json.dumps(await self._messages.events()).encode()

    async def _roster_number(self, *_: object) -> bytes:
        return self._rosters.number().model_dump_json().encode()

    async def _roster(self, *_: object) -> bytes:
        return self._rosters.roster()

    async def _take_roster(self, peer: str, _: Mapping[str, str], body: bytes) -> bytes:
        return (await self._rosters.receive(peer, body)).model_dump_json().encode()

    async def _show_readiness(self, _: str, params: Mapping[str, str], __: bytes) -> bytes:
        """For a question of its own: the nonce shows that the document was made after it."""
        nonce = params.get("nonce")
        if nonce is not None and len(nonce) > MAX_NONCE:
            raise BadInputError(f"a nonce has at most {MAX_NONCE} characters")
        document = self._readiness().document
        return document.model_copy(update={"nonce": nonce}).model_dump_json().encode()

    async def _show_changed(self, _: str, params: Mapping[str, str], __: bytes) -> bytes:
        """For who asks again and again: only what it does not know yet."""
        published = self._readiness()
        same = params.get("known") == published.tag
        seen = SeenReadiness(tag=published.tag, document=None if same else published.document)
        return seen.model_dump_json().encode()

    async def _tuf(self, _: str, params: Mapping[str, str], __: bytes) -> bytes:
        """The TUF repository as this node has verified it, for a peer that cannot reach the coordinator."""
        path = params["path"]
        if SERVED.fullmatch(path) is None:
            raise NotFoundError("there is no such file in a repository")
        return await self._repository.serve(path)
