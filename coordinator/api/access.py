"""Who may call what: nodes by certificate and roster, operators by bearer token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from coordinator.fleet import FleetState
from shared.canonical import sha256_hex
from shared.errors import RollcallError, UntrustedError
from shared.http import caller

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UnauthenticatedError(RollcallError):
    code = "unauthenticated"
    http_status = 401


class Access:
    def __init__(self, fleet: FleetState, token_sha256: str) -> None:
        self._fleet, self._token_sha256 = fleet, token_sha256

    def node(self, request: web.Request) -> str:
        """The calling node. Raises UnauthenticatedError without a certificate, UntrustedError for one
        whose node is not, or no longer, in the roster."""
        name = caller(request)
        if name is None:
            raise UnauthenticatedError("a node's certificate is needed here")
        if name not in {node.name for node in self._fleet.roster.live()}:
            raise UntrustedError(f"{name!r} is not in the roster, or was revoked")
        return name

    def is_operator(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(sha256_hex(token.encode()), self._token_sha256)
        return scheme.lower() == "bearer" and right

    def operators_only(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self.is_operator(request):
                raise UnauthenticatedError(
                    "an operator's token is needed here",
                    remedy="name it in the CLI's configuration as token_file",
                )
            return await handler(request)

        return guarded

    def members_only(self, handler: Handler) -> Handler:
        """For operators and for nodes of the roster."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self.is_operator(request):
                self.node(request)
            return await handler(request)

        return guarded
