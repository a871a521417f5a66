"""Two of the agent's doors: loopback HTTP that reads, and a private socket that acts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Protocol

from aiohttp import web
from pydantic import Field, StringConstraints

from agent.readiness.logs.forms import LogReport
from agent.upgrade.keeper import Keeper
from shared.errors import BadInputError
from shared.http import application, read_wire, wire_response
from shared.messages import Verdict
from shared.readiness import ReadinessDocument
from shared.report import NodeReport, RollbackPlan
from shared.wire import Reason, Wire

MAX_NONCE = 64


class RollbackRequest(Wire):
    reason: Reason = "an operator asked for it"


class ClearRequest(Wire):
    key: str
    reason: Reason


class PruneRequest(Wire):
    """Without limits the usual ones of agent.toml hold."""

    count: Annotated[int, Field(ge=0, le=10_000)] | None = None
    days: Annotated[float, Field(ge=0, le=36_500)] | None = None
    dry_run: bool = False


class UnblockRequest(Wire):
    release: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{4,64}|all)$")]


class Facade(Protocol):
    """What the doors need of the daemon."""

    def document(self) -> ReadinessDocument: ...
    def weight(self) -> int: ...
    async def report(self) -> NodeReport: ...
    async def roll_back(self, reason: str) -> NodeReport: ...
    async def clear(self, key: str, reason: str) -> None: ...
    async def change_keys(self) -> str: ...


class Controls(Facade, Protocol):
    """What the private door needs besides."""

    @property
    def keeper(self) -> Keeper: ...
    async def plan_rollback(self) -> RollbackPlan: ...
    def logs(self) -> LogReport: ...


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


def control_app(facade: Controls) -> web.Application:
    """On `agent.sock`, mode 0600: whoever may open it is this node's administrator."""
    app = application()

    async def rollback(request: web.Request) -> web.Response:
        asked = await read_wire(request, RollbackRequest)
        return wire_response(await facade.roll_back(asked.reason))

    async def clear(request: web.Request) -> web.Response:
        asked = await read_wire(request, ClearRequest)
        await facade.clear(asked.key, asked.reason)
        return web.json_response({"cleared": asked.key})

    async def rollback_plan(_: web.Request) -> web.Response:
        return wire_response(await facade.plan_rollback())

    async def change_keys(_: web.Request) -> web.Response:
        return web.json_response({"keyid": await facade.change_keys()})

    async def status(_: web.Request) -> web.Response:
        return wire_response(await facade.report())

    async def readiness(_: web.Request) -> web.Response:
        return wire_response(facade.document())

    async def logs(_: web.Request) -> web.Response:
        return wire_response(facade.logs())

    app.router.add_post("/v1/rollback", rollback)
    app.router.add_get("/v1/rollback", rollback_plan)
    _add_keeper(app, facade.keeper)
    app.router.add_post("/v1/clear", clear)
    app.router.add_post("/v1/keys", change_keys)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/v1/readiness", readiness)
    app.router.add_get("/v1/logs", logs)
    return app


def _add_keeper(app: web.Application, keeper: Keeper) -> None:
    async def bookmarks(_: web.Request) -> web.Response:
        found = await keeper.bookmarks()
        return web.json_response({"bookmarks": [each.model_dump(mode="json") for each in found]})

    async def bookmark(request: web.Request) -> web.Response:
        return wire_response(await keeper.show(request.match_info["upgrade"]))

    async def prune(request: web.Request) -> web.Response:
        asked = await read_wire(request, PruneRequest)
        keeping = keeper.keeping(asked.count, asked.days)
        return web.json_response({"pruned": await keeper.prune(keeping, dry_run=asked.dry_run)})

    async def blocklist(_: web.Request) -> web.Response:
        found = await keeper.blocklist()
        return web.json_response({"blocked": [each.model_dump(mode="json") for each in found]})

    async def unblock(request: web.Request) -> web.Response:
        asked = await read_wire(request, UnblockRequest)
        return web.json_response({"cleared": await keeper.unblock(asked.release)})

    app.router.add_get("/v1/bookmarks", bookmarks)
    app.router.add_get("/v1/bookmarks/{upgrade}", bookmark)
    app.router.add_post("/v1/bookmarks/prune", prune)
    app.router.add_get("/v1/blocklist", blocklist)
    app.router.add_post("/v1/blocklist/clear", unblock)
