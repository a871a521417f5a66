"""`/v1/nodes`, `/v1/targets`, `/v1/rollouts`, `/v1/watch`: what operators see and set."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.releases import ReleasesApi
from coordinator.api.routes import SHORT_ID, Call, Number, Resource, Route
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout.engine import Engine
from coordinator.store.queries import Queries
from shared.errors import NotFoundError
from shared.http import wire_response
from shared.rollout import FleetView, NodeState, NodeView, Rollout, TargetRequest
from shared.wire import NodeName, Reason, Wire

LONGEST_WAIT_S = 20
SHOWN_ROLLOUTS = 20


class NodeList(Wire):
    nodes: list[NodeView]


class RolloutList(Wire):
    rollouts: list[Rollout]


class HistoryEntry(Wire):
    at: float
    node: NodeName
    state: NodeState
    reason: Reason


class History(Wire):
    history: list[HistoryEntry]


class RolloutsApi(Resource):
    def __init__(
        self,
        queries: Queries,
        fleet: FleetState,
        engine: Engine,
        releases: ReleasesApi,
        notifier: Notifier,
    ) -> None:
        self._queries, self._fleet, self._engine = queries, fleet, engine
        self._releases, self._notifier = releases, notifier

    async def nodes(self, _: Call) -> NodeList:
        fleet = await self._fleet.fleet()
        return NodeList(nodes=list(fleet.nodes.values()))

    async def set_target(self, call: Call) -> web.Response:
        """`set_by` is whoever the token belongs to, whatever the request says."""
        operator = call.caller.operator
        asked = call.wire(TargetRequest)
        if operator is not None:
            asked = asked.model_copy(update={"set_by": operator.name})
        release = self._releases.find(asked.release)
        rollout = await self._engine.start(release, asked)
        call.subject = f"rollout {rollout.id}"
        call.detail = f"{'plan only: ' if asked.dry_run else ''}{release.label}, {asked.strategy}"
        return wire_response(rollout, status=200 if asked.dry_run else 201)

    async def rollouts(self, _: Call) -> RolloutList:
        found = await self._queries.recent_rollouts(SHOWN_ROLLOUTS)
        return RolloutList(rollouts=[rollout for rollout, _ in found])

    async def history(self, call: Call) -> History:
        rollout = call.parameters["id"]
        entries = await self._queries.history_of(rollout)
        if not entries:
            raise NotFoundError(f"no rollout {rollout!r} has a history")
        return History.model_validate({"history": entries})

    async def watch(self, call: Call) -> FleetView:
        """The whole fleet, once it is newer than `generation`; after `wait_s` in any case."""
        await self._notifier.wait_beyond(call.query["generation"], call.query["wait_s"])
        return await self._fleet.view()

    routes = (
        Route(
            "GET",
            "/v1/nodes",
            nodes,
            Allows.VIEWER,
            "Every node: what it runs, whether it is ready, what it waits for.",
            answer=NodeList,
        ),
        Route(
            "POST",
            "/v1/targets",
            set_target,
            Allows.OPERATOR,
            "Begin a rollout to a release, or only plan it.",
            body=TargetRequest,
            answer=Rollout,
            success=(201, 200),
            refusals=(404, 409),
        ),
        Route(
            "GET",
            "/v1/rollouts",
            rollouts,
            Allows.VIEWER,
            "The latest rollouts, newest first.",
            answer=RolloutList,
        ),
        Route(
            "GET",
            "/v1/rollouts/{id}/history",
            history,
            Allows.VIEWER,
            "Every change of a node's state in a rollout.",
            parameters={"id": SHORT_ID},
            answer=History,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/v1/watch",
            watch,
            Allows.VIEWER,
            "The whole fleet, as soon as it is newer than what the caller has.",
            answer=FleetView,
            query=(
                Number("generation", 0, 10**18 - 1, "What the caller has."),
                Number("wait_s", LONGEST_WAIT_S, LONGEST_WAIT_S, "Answer after so long anyway."),
            ),
        ),
    )
