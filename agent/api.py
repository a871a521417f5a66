"""Two of the agent's doors: loopback HTTP that reads, and a private socket that acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from shared.errors import BadInputError
from shared.http import application, read_wire, wire_response
from shared.messages import Verdict
from shared.readiness import ReadinessDocument
from shared.report import NodeReport
from shared.wire import Reason, Wire

MAX_NONCE = 64


class RollbackRequest(Wire):
    reason: Reason = "an operator asked for it"


class ClearRequest(Wire):
    key: str
    reason: Reason


class Facade(Protocol):
    """What the doors need of the daemon."""

    def document(self) -> ReadinessDocument: ...
    def weight(self) -> int: ...
    async def report(self) -> NodeReport: ...
    async def roll_back(self, reason: str) -> NodeReport: ...
    async def clear(self, key: str, reason: str) -> None: ...
    async def change_keys(self) -> str: ...


def reading_app(facade: Facade) -> web.Application:
    """`/livez`, `/readyz`, `/v1/readiness`, `/v1/status`: for load balancers and people, read-only."""
    app = application()

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def readyz(_: web.Request) -> web.Response:
        """200 when green and taking traffic; otherwise 503 with the reason."""
        document = facade.document()
        if document.status is Verdict.GREEN and facade.weight() > 0:
            return web.json_response({"ready": True})
        reason = document.reason or "drained"
        return web.json_response(
            {"ready": False, "status": document.status, "reason": reason}, status=503
        )

    async def status(_: web.Request) -> web.Response:
        return wire_response(await facade.report())

    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/v1/readiness", readiness_route(facade))
    app.router.add_get("/v1/status", status)
    return app


def readiness_route(facade: Facade) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def readiness(request: web.Request) -> web.StreamResponse:
        nonce = request.query.get("nonce")
        if nonce is not None and len(nonce) > MAX_NONCE:
            raise BadInputError(f"a nonce has at most {MAX_NONCE} characters")
        return wire_response(facade.document().model_copy(update={"nonce": nonce}))

    return readiness


def control_app(facade: Facade) -> web.Application:
    """On `agent.sock`, mode 0600: whoever may open it is this node's administrator."""
    app = application()

    async def rollback(request: web.Request) -> web.Response:
        asked = await read_wire(request, RollbackRequest)
        return wire_response(await facade.roll_back(asked.reason))

    async def clear(request: web.Request) -> web.Response:
        asked = await read_wire(request, ClearRequest)
        await facade.clear(asked.key, asked.reason)
        return web.json_response({"cleared": asked.key})

    async def change_keys(_: web.Request) -> web.Response:
        return web.json_response({"keyid": await facade.change_keys()})

    async def status(_: web.Request) -> web.Response:
        return wire_response(await facade.report())

    async def readiness(_: web.Request) -> web.Response:
        return wire_response(facade.document())

    app.router.add_post("/v1/rollback", rollback)
    app.router.add_post("/v1/clear", clear)
    app.router.add_post("/v1/keys", change_keys)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/v1/readiness", readiness)
    return app
