"""The agent's private door, a socket that acts, and what all its doors need of the daemon."""

from __future__ import annotations

from typing import Annotated, Protocol

from aiohttp import web
from pydantic import Field, StringConstraints

from agent.freezes import FreezeList, Freezes
from agent.history_api import PATH, history_route
from agent.peers.listing import PeersReport
from agent.readiness.history import History
from agent.readiness.logs.forms import LogReport
from agent.readiness.publishing import Published
from agent.upgrade.keeper import Keeper
from shared.attesting import AttestationExport
from shared.freezing import Who, Why
from shared.http import Handler, application, read_body, read_wire, wire_response
from shared.operatorclear import MAX_CLEAR_BYTES
from shared.report import NodeReport, RollbackPlan
from shared.wire import Reason, Wire


class RollbackRequest(Wire):
    reason: Reason = "an operator asked for it"


class ClearRequest(Wire):
    key: str
    reason: Reason


class FreezeRequest(Wire):
    """Also lifts. `who` is the account that asks, as the command names it: the door lets in administrators only."""

    who: Who
    reason: Annotated[Why, Field(min_length=1)]


class PruneRequest(Wire):
    """Without limits the usual ones of agent.toml hold."""

    count: Annotated[int, Field(ge=0, le=10_000)] | None = None
    days: Annotated[float, Field(ge=0, le=36_500)] | None = None
    dry_run: bool = False


class UnblockRequest(Wire):
    release: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{4,64}|all)$")]


class Facade(Protocol):
    """What the doors need of the daemon."""

    def published(self) -> Published: ...
    def weight(self) -> int: ...
    def told_readiness(self, address: str | None, told: str) -> None: ...
    async def report(self) -> NodeReport: ...
    async def roll_back(self, reason: str) -> NodeReport: ...
    async def clear(self, key: str, reason: str) -> None: ...
    async def change_keys(self) -> str: ...


class Measured(Facade, Protocol):
    """What the doors for people of this host need besides."""

    @property
    def history(self) -> History: ...


class Controls(Measured, Protocol):
    """What the private door needs besides."""

    @property
    def keeper(self) -> Keeper: ...
    @property
    def freezes(self) -> Freezes: ...
    async def plan_rollback(self) -> RollbackPlan: ...
    def logs(self) -> LogReport: ...
    async def peers(self) -> PeersReport: ...
    async def attestations(self, order: str) -> AttestationExport: ...
    async def take_clear(self, envelope: bytes) -> str: ...
    async def freeze(self, who: str, why: str) -> FreezeList: ...
    async def unfreeze(self, who: str, why: str) -> FreezeList: ...


def control_app(facade: Controls, readiness: Handler) -> web.Application:
    """On `agent.sock`, mode 0600: whoever may open it is this node's administrator. `readiness` answers as it
    does at the other doors."""
    app = application()

    async def rollback(request: web.Request) -> web.Response:
        asked = await read_wire(request, RollbackRequest)
        return wire_response(await facade.roll_back(asked.reason))

    async def clear(request: web.Request) -> web.Response:
        asked = await read_wire(request, ClearRequest)
        await facade.clear(asked.key, asked.reason)
        return web.json_response({"cleared": asked.key})

    async def operator_clear(request: web.Request) -> web.Response:
        raw = await read_body(request, limit=MAX_CLEAR_BYTES)
        return web.json_response({"cleared": await facade.take_clear(raw)})

    async def attestations(request: web.Request) -> web.Response:
        return wire_response(await facade.attestations(request.match_info["order"]))

    async def rollback_plan(_: web.Request) -> web.Response:
        return wire_response(await facade.plan_rollback())

    async def change_keys(_: web.Request) -> web.Response:
        return web.json_response({"keyid": await facade.change_keys()})

    async def status(_: web.Request) -> web.Response:
        return wire_response(await facade.report())

    async def logs(_: web.Request) -> web.Response:
        return wire_response(facade.logs())

    async def peers(_: web.Request) -> web.Response:
        return wire_response(await facade.peers())

    app.router.add_post("/v1/rollback", rollback)
    app.router.add_get("/v1/rollback", rollback_plan)
    _add_keeper(app, facade.keeper)
    _add_freezes(app, facade)
    app.router.add_post("/v1/clear", clear)
    app.router.add_post("/v1/operator-clear", operator_clear)
    app.router.add_post("/v1/keys", change_keys)
    app.router.add_get("/v1/attestations/{order}", attestations)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/v1/peers", peers)
    app.router.add_get("/v1/readiness", readiness)
    app.router.add_get(PATH, history_route(facade.history))
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


def _add_freezes(app: web.Application, facade: Controls) -> None:
    async def freezes(_: web.Request) -> web.Response:
        return wire_response(facade.freezes.listing())

    async def freeze(request: web.Request) -> web.Response:
        asked = await read_wire(request, FreezeRequest)
        return wire_response(await facade.freeze(asked.who, asked.reason))

    async def unfreeze(request: web.Request) -> web.Response:
        asked = await read_wire(request, FreezeRequest)
        return wire_response(await facade.unfreeze(asked.who, asked.reason))

    app.router.add_get("/v1/freezes", freezes)
    app.router.add_post("/v1/freeze", freeze)
    app.router.add_post("/v1/unfreeze", unfreeze)
