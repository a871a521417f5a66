"""`/tuf/…`, `/v1/trust`, `/v1/coordinator`: what operators signed, handed out as it is and taken in
only when their signatures hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from coordinator.api.access import Allows, Caller, ForbiddenError
from coordinator.api.routes import BINARY, SHA256, Call, Resource, Route
from coordinator.home import KeyRing
from coordinator.operators import OperatorRole
from coordinator.repository import MAX_OFFER_BYTES, Offer, Repository
from shared.errors import NotFoundError
from shared.fleet import CoordinatorKeys
from shared.metadata import FLEET, SERVED
from shared.wire import Wire


class TrustState(Wire):
    """Versions in force after a publication."""

    root: int
    targets: int
    releases: list[str]


class TrustApi(Resource):
    """`on_fleet` is called when keys or authorities have changed, `on_news` when anything has."""

    def __init__(
        self,
        repository: Repository,
        ring: KeyRing,
        url: str,
        on_fleet: Callable[[], Awaitable[None]],
        on_news: Callable[[], None],
    ) -> None:
        self._repository, self._ring, self._url = repository, ring, url
        self._on_fleet, self._on_news = on_fleet, on_news
        self._publishing = asyncio.Lock()

    async def metadata(self, call: Call) -> web.Response:
        return await self._file(call.parameters["path"])

    async def fleet_document(self, call: Call) -> web.Response:
        return await self._file(f"targets/{call.parameters['sha256']}.{FLEET}")

    async def target(self, call: Call) -> web.Response:
        return await self._file(f"targets/{call.parameters['name']}")

    async def _file(self, path: str) -> web.Response:
        if SERVED.fullmatch(path) is None:
            raise NotFoundError("there is no such file in the repository")
        raw = await asyncio.to_thread(self._repository.read, path)
        return web.Response(body=raw, content_type="application/octet-stream")

    async def keys(self, _: Call) -> CoordinatorKeys:
        await asyncio.to_thread(self._ring.look_again)
        return self._ring.current.public(self._url, self._ring.following)

    async def publish(self, call: Call) -> TrustState:
        """A new root, and a new fleet document, are for admins."""
        offer = call.wire(Offer)
        if offer.roots or FLEET in offer.files:
            _must_be_admin(call.caller)
        before = self._repository.fleet
        async with self._publishing:
            await asyncio.to_thread(self._repository.publish, offer)
        call.subject = ", ".join(sorted(offer.files)) or "targets"
        if self._repository.fleet != before:
            await self._on_fleet()
        self._on_news()
        return self._state()

    async def state(self, _: Call) -> TrustState:
        return self._state()

    def _state(self) -> TrustState:
        root, targets = self._repository.root, self._repository.targets
        return TrustState(
            root=0 if root is None else root.signed.version,
            targets=0 if targets is None else targets.signed.version,
            releases=[each.manifest.name for each in self._repository.releases],
        )

    routes = (
        Route(
            "GET",
            "/tuf/{path}",
            metadata,
            Allows.ANYONE,
            "TUF metadata: root, targets, snapshot, timestamp.",
            parameters={"path": r"[0-9a-zA-Z.]{1,40}"},
            answer=BINARY,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/tuf/targets/{sha256}.fleet.json",
            fleet_document,
            Allows.ANYONE,
            "The fleet document: how a stranger with a join token comes to trust this fleet.",
            parameters={"sha256": SHA256},
            answer=BINARY,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/tuf/targets/{name}",
            target,
            Allows.MEMBER,
            "A release or a capability: `<sha256>.<name>.release.json`, `<sha256>.<name>-<version>.capability.json`.",
            parameters={"name": r"[0-9a-f]{64}\.[0-9A-Za-z][0-9A-Za-z.+-]{0,80}"},
            answer=BINARY,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/v1/coordinator",
            keys,
            Allows.VIEWER,
            "The public halves of the coordinator's keys, for operators to sign.",
            answer=CoordinatorKeys,
        ),
        Route("GET", "/v1/trust", state, Allows.VIEWER, "Versions in force.", answer=TrustState),
        Route(
            "POST",
            "/v1/trust",
            publish,
            Allows.OPERATOR,
            "Publish metadata that enough operators have signed, with the files that it names.",
            body=Offer,
            answer=TrustState,
            refusals=(403, 409),
            limit=MAX_OFFER_BYTES,
        ),
    )


def _must_be_admin(caller: Caller) -> None:
    if caller.operator is None or not caller.operator.role.covers(OperatorRole.ADMIN):
        raise ForbiddenError("a new root or fleet document is published by an admin")
