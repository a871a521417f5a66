"""`/v1/reds`: the failure broadcasts that reached the coordinator, and operators' clears of them."""

from __future__ import annotations

import asyncio

from coordinator.api.access import Allows
from coordinator.api.routes import ENVELOPE, Call, Resource, Route
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.reds import Reds
from coordinator.repository import Repository
from coordinator.store.settling import answered_by
from shared.errors import BadInputError, NotFoundError
from shared.operatorclear import MAX_CLEAR_BYTES, identity, open_clear
from shared.rollout import RedView
from shared.wire import RED_KEY, Reason, RedKey, Wire


class RedList(Wire):
    """In the order they came; of revoked nodes too, whose reds others may still hold."""

    reds: list[RedView]


class RedDetail(Wire):
    """`red` is the envelope that the origin signed, `clears` what operators have signed to end it, `held_by` the
    nodes that say that it freezes them."""

    view: RedView
    red: str
    clears: list[str]
    held_by: list[str]


class Cleared(Wire):
    key: RedKey
    reason: Reason


class RedsApi(Resource):
    """Takes only clears that enough operators have signed: agents believe no others."""

    def __init__(
        self, reds: Reds, fleet: FleetState, repository: Repository, notifier: Notifier
    ) -> None:
        self._reds, self._fleet = reds, fleet
        self._repository, self._notifier = repository, notifier

    async def listing(self, _: Call) -> RedList:
        return RedList(reds=await self._reds.all())

    async def show(self, call: Call) -> RedDetail:
        key = call.parameters["key"]
        red = await self._must(key)
        views = (await self._fleet.fleet()).nodes.values()
        return RedDetail(
            view=next(view for view in await self._reds.all() if view.key == key),
            red=red,
            clears=await self._reds.clears([key]),
            held_by=[view.name for view in views if key in {each.key for each in view.freezes}],
        )

    async def _must(self, key: str) -> str:
        red = await self._reds.find(key)
        if red is None:
            raise NotFoundError(
                f"no red {key} reached this coordinator", remedy="list them: rollcall red list"
            )
        return red

    async def clear(self, call: Call) -> Cleared:
        root = self._repository.root
        fleet = self._repository.must_fleet()
        if root is None:
            raise NotFoundError("the fleet has no root")
        clear = await asyncio.to_thread(open_clear, call.raw, root.signed, fleet.fleet)
        call.subject, call.detail = clear.ref, clear.reason
        if identity(await self._must(clear.ref)) != (clear.ref, clear.sha256):
            raise BadInputError(
                f"this clear is about another red than {clear.ref} as it is here",
                remedy="draft it anew: rollcall red clear KEY",
            )
        answer = Cleared(key=clear.ref, reason=clear.reason)
        answered_by(answer)
        await self._reds.keep(clear, call.raw.decode())
        self._notifier.notify()
        return answer

    routes = (
        Route("GET", "/v1/reds", listing, Allows.VIEWER, "All reds.", answer=RedList),
        Route(
            "GET",
            "/v1/reds/{key}",
            show,
            Allows.VIEWER,
            "One red as its origin signed it, and who holds it.",
            parameters={"key": RED_KEY},
            answer=RedDetail,
            refusals=(404,),
        ),
        Route(
            "POST",
            "/v1/reds/clears",
            clear,
            Allows.OPERATOR,
            "End one red for all: an operator's clear with enough operators' signatures.",
            body=ENVELOPE,
            answer=Cleared,
            refusals=(403, 404, 409),
            limit=MAX_CLEAR_BYTES,
        ),
    )
