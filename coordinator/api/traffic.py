"""`/v1/traffic`: the share of traffic of each node, who holds them, and snapshots."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Number, Resource, Route
from coordinator.store.traffic import TrafficQueries
from coordinator.traffic.book import Said, TrafficBook
from coordinator.traffic.engine import TrafficEngine
from coordinator.traffic.snapshots import Snapshots
from shared.errors import BadInputError, ConflictError, NotFoundError
from shared.traffic import (
    SNAPSHOT_NAME,
    FleetFreeze,
    FreezeRequest,
    NodeTraffic,
    Restored,
    RestoreRequest,
    RolloutTraffic,
    SetShare,
    Snapshot,
    SnapshotList,
    SnapshotRequest,
    TrafficHistory,
    TrafficView,
)
from shared.wire import NODE_NAME

MAX_HISTORY = 1000


class TrafficApi(Resource):
    def __init__(
        self,
        engine: TrafficEngine,
        book: TrafficBook,
        snapshots: Snapshots,
        queries: TrafficQueries,
    ) -> None:
        self._engine, self._book = engine, book
        self._snapshots, self._queries = snapshots, queries

    async def show(self, _: Call) -> TrafficView:
        return await self._engine.view()

    async def set_share(self, call: Call) -> NodeTraffic:
        asked, name = call.wire(SetShare), call.parameters["name"]
        if asked.auto == (asked.percent is not None):
            raise BadInputError("either percent is set, or auto, and not both")
        now = await self._node(name)
        if asked.auto and not now.pinned:
            raise ConflictError(
                f"the share of {name} is not set by an operator",
                remedy="see: rollcall traffic show",
            )
        self._book.check_thawed()
        percent = now.desired if asked.percent is None else asked.percent
        call.detail = f"{'give back' if asked.auto else f'{percent} %'}: {asked.reason}"
        if percent is None or asked.dry_run:
            call.detail = f"dry run: {call.detail}"
            changed = {"desired": percent, "pinned": not asked.auto, "reason": asked.reason}
            return now.model_copy(update={**changed, "by": call.caller.who})
        said = Said(percent, not asked.auto, now.release)
        show = await self._engine.shows()
        await self._book.say({name: said}, call.caller.who, asked.reason, lambda new: show(new[0]))
        return await self._node(name)

    async def _node(self, name: str) -> NodeTraffic:
        nodes = (await self._engine.view()).nodes
        found = next((node for node in nodes if node.node == name), None)
        if found is None:
            known = ", ".join(node.node for node in nodes) or "none"
            raise NotFoundError(f"no node is called {name!r}", remedy=f"there are: {known}")
        return found

    async def freeze(self, call: Call) -> FleetFreeze:
        call.detail = call.wire(FreezeRequest).reason
        return await self._book.freeze(call.caller.who, call.detail)

    async def unfreeze(self, call: Call) -> FleetFreeze:
        call.detail = call.wire(FreezeRequest).reason
        return await self._book.unfreeze(call.caller.who, call.detail)

    async def history(self, call: Call) -> TrafficHistory:
        return TrafficHistory(history=await self._queries.history(call.query["limit"]))

    async def of_rollout(self, call: Call) -> RolloutTraffic:
        rollout = call.parameters["id"]
        return RolloutTraffic(
            history=await self._queries.history(MAX_HISTORY, rollout=rollout),
            snapshots=await self._queries.snapshots(MAX_HISTORY, rollout=rollout),
        )

    async def take(self, call: Call) -> Snapshot:
        asked = call.wire(SnapshotRequest)
        call.subject, call.detail = f"snapshot {asked.name}", asked.reason
        return await self._snapshots.take(asked.name, call.caller.who, asked.reason)

    async def snapshots(self, _: Call) -> SnapshotList:
        return SnapshotList(snapshots=await self._snapshots.all())

    async def snapshot(self, call: Call) -> Snapshot:
        return await self._snapshots.get(call.parameters["name"])

    async def restore(self, call: Call) -> Restored:
        asked, name = call.wire(RestoreRequest), call.parameters["name"]
        call.detail = f"{'dry run: ' if asked.dry_run else ''}{asked.reason}"
        return await self._snapshots.restore(
            name, call.caller.who, asked.reason, dry_run=asked.dry_run
        )

    routes = (
        Route(
            "GET",
            "/v1/traffic",
            show,
            Allows.VIEWER,
            "Every node's share of traffic: wanted, taken, who asks, and what it waits for.",
            answer=TrafficView,
        ),
        Route(
            "POST",
            "/v1/traffic/nodes/{name}",
            set_share,
            Allows.OPERATOR,
            "Set a node's share, which then stands; or give it back with `auto`.",
            body=SetShare,
            answer=NodeTraffic,
            parameters={"name": NODE_NAME},
            refusals=(404, 409),
        ),
        Route(
            "POST",
            "/v1/traffic/freeze",
            freeze,
            Allows.OPERATOR,
            "Hold the ratios of the whole fleet.",
            body=FreezeRequest,
            answer=FleetFreeze,
            success=(201,),
            refusals=(409,),
        ),
        Route(
            "POST",
            "/v1/traffic/unfreeze",
            unfreeze,
            Allows.OPERATOR,
            "Let the ratios change again; answers with the freeze that is over.",
            body=FreezeRequest,
            answer=FleetFreeze,
            refusals=(409,),
        ),
        Route(
            "GET",
            "/v1/traffic/history",
            history,
            Allows.VIEWER,
            "Every change of what was wanted of a node, newest first.",
            answer=TrafficHistory,
            query=(Number("limit", 100, MAX_HISTORY, "How many.", lowest=1),),
        ),
        Route(
            "GET",
            "/v1/traffic/rollouts/{id}",
            of_rollout,
            Allows.VIEWER,
            "What one rollout did with traffic, and the snapshots beside its bookmarks.",
            answer=RolloutTraffic,
            parameters={"id": SHORT_ID},
        ),
        Route(
            "POST",
            "/v1/traffic/snapshots",
            take,
            Allows.OPERATOR,
            "Keep the shares and releases of all nodes under a name.",
            body=SnapshotRequest,
            answer=Snapshot,
            success=(201,),
            refusals=(409,),
        ),
        Route(
            "GET",
            "/v1/traffic/snapshots",
            snapshots,
            Allows.VIEWER,
            "The snapshots, newest first.",
            answer=SnapshotList,
        ),
        Route(
            "GET",
            "/v1/traffic/snapshots/{name}",
            snapshot,
            Allows.VIEWER,
            "One snapshot.",
            answer=Snapshot,
            parameters={"name": SNAPSHOT_NAME},
            refusals=(404,),
        ),
        Route(
            "POST",
            "/v1/traffic/snapshots/{name}/restore",
            restore,
            Allows.OPERATOR,
            "Want again what was wanted then, or only show what that changes.",
            body=RestoreRequest,
            answer=Restored,
            parameters={"name": SNAPSHOT_NAME},
            refusals=(404, 409),
        ),
    )
