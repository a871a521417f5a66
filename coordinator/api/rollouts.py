"""`/v1/plans`, `/v1/rollouts`, `/v1/targets`, `/v1/nodes`, `/v1/watch`: what operators see and set."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import (
    SHA256,
    SHORT_ID,
    Call,
    Handler,
    Number,
    Resource,
    Route,
    Version,
)
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout.begin import rollout_of
from coordinator.rollout.engine import Engine, refusal_error
from coordinator.store.queries import Queries
from coordinator.store.rollouts import RolloutStore
from shared.canonical import framed_sha256
from shared.errors import NotFoundError
from shared.http import wire_response
from shared.rollout import (
    FleetView,
    NodeState,
    NodeView,
    Rollout,
    RolloutRequest,
    RolloutState,
    TargetRequest,
    Unblocked,
    VerbRequest,
    Who,
)
from shared.rolloutplan import Plan, StartRequest
from shared.wire import NodeName, Reason, Wire

LONGEST_WAIT_S = 20


def _planned(call: Call, plan: Plan) -> None:
    call.subject = f"plan {plan.sha256[:12]}"
    call.detail = f"{plan.kind} {plan.label}, {plan.options.strategy}"


def _begun(call: Call, rollout: Rollout) -> None:
    call.subject = f"rollout {rollout.id}"
    call.detail = f"{rollout.kind} {rollout.label}, {rollout.strategy}"


SHOWN_ROLLOUTS = 20
ID = {"id": SHORT_ID}


class NodeList(Wire):
    nodes: list[NodeView]


class RolloutList(Wire):
    rollouts: list[Rollout]


class HistoryEntry(Wire):
    """`node` is None for what the whole rollout became; `who` is empty where nobody said so."""

    at: float
    node: NodeName | None
    state: NodeState | RolloutState
    reason: Reason
    who: Who = ""


class History(Wire):
    history: list[HistoryEntry]


def _verb_route(verb: str, handler: Handler, version: Version, summary: str) -> Route:
    return Route(
        "POST",
        f"/v1/rollouts/{{id}}/{verb}",
        handler,
        Allows.OPERATOR,
        summary,
        body=VerbRequest,
        parameters=ID,
        answer=Rollout,
        refusals=(404, 409),
        etag=version,
    )


class RolloutsApi(Resource):
    def __init__(
        self,
        queries: Queries,
        store: RolloutStore,
        fleet: FleetState,
        engine: Engine,
        notifier: Notifier,
    ) -> None:
        self._queries, self._store, self._fleet, self._engine = queries, store, fleet, engine
        self._notifier = notifier

    async def nodes(self, call: Call) -> NodeList:
        nodes = await self._fleet.nodes(brief=bool(call.query["brief"]))
        return NodeList(nodes=nodes)

    async def plan(self, call: Call) -> Plan:
        return await self._engine.keep(call.wire(RolloutRequest))

    async def start(self, call: Call) -> Rollout:
        asked = call.wire(StartRequest)
        return await self._engine.start(asked.plan, _who(call))

    async def set_target(self, call: Call) -> web.Response:
        """`set_by` is whoever the token belongs to, whatever the request says."""
        asked, who = call.wire(TargetRequest), _who(call)
        plan = await self._engine.plan(asked.as_request())
        if plan.refusals:
            raise refusal_error(plan.refusals)
        if not asked.dry_run:
            return wire_response(await self._engine.begin(plan, who), status=201)
        rollout = rollout_of(plan, "0" * 8, who, plan.planned)
        call.subject = f"rollout {rollout.id}"
        call.detail = f"plan only: {plan.label}, {plan.options.strategy}"
        return wire_response(rollout, status=200)

    async def rollouts(self, _: Call) -> RolloutList:
        found = await self._queries.recent_rollouts(SHOWN_ROLLOUTS)
        return RolloutList(rollouts=[rollout for rollout, _ in found])

    async def rollout(self, call: Call) -> Rollout:
        return await self._engine.rollout(call.parameters["id"])

    async def version(self, call: Call) -> str:
        """Its state, and that of each node: what an operator decides on. How far each one is, is none."""
        rollout = await self.rollout(call)
        said = [rollout.state, *(f"{n.name} {n.state} {n.attempt}" for n in rollout.nodes)]
        return framed_sha256([each.encode() for each in said])[:16]

    async def plan_of(self, call: Call) -> Plan:
        found = await self._store.plan_of(call.parameters["id"])
        if found is None:
            raise NotFoundError(f"no rollout {call.parameters['id']!r} has a plan")
        return found

    async def history(self, call: Call) -> History:
        rollout = call.parameters["id"]
        entries = await self._queries.history_of(rollout)
        if not entries:
            raise NotFoundError(f"no rollout {rollout!r} has a history")
        return History.model_validate({"history": entries})

    async def pause(self, call: Call) -> Rollout:
        return await self._engine.pause(call.parameters["id"], _asked(call), _who(call))

    async def resume(self, call: Call) -> Rollout:
        return await self._engine.resume(call.parameters["id"], _asked(call), _who(call))

    async def abort(self, call: Call) -> Rollout:
        return await self._engine.abort(call.parameters["id"], _asked(call), _who(call))

    async def retry(self, call: Call) -> Rollout:
        return await self._engine.retry(call.parameters["id"], _asked(call), _who(call))

    async def skip(self, call: Call) -> Rollout:
        return await self._engine.skip(call.parameters["id"], _asked(call), _who(call))

    async def promote(self, call: Call) -> Rollout:
        return await self._engine.promote(call.parameters["id"], _asked(call), _who(call))

    async def unblock(self, call: Call) -> Unblocked:
        """A release that is withdrawn meanwhile can be named by its whole id."""
        release = call.parameters["id"]
        call.detail = call.wire(VerbRequest).reason
        return Unblocked(release=release, forgotten=await self._engine.unblock(release))

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
            query=(Number("brief", 0, 1, "1: without trends and checks that pass."),),
        ),
        Route(
            "POST",
            "/v1/plans",
            plan,
            Allows.OPERATOR,
            "Plan a rollout: waves, times, checks, refusals. Nothing begins.",
            body=RolloutRequest,
            answer=Plan,
            refusals=(404,),
            about=_planned,
        ),
        Route(
            "POST",
            "/v1/rollouts",
            start,
            Allows.OPERATOR,
            "Begin the rollout of a plan, if it would still be the same.",
            body=StartRequest,
            answer=Rollout,
            success=(201,),
            refusals=(403, 404, 409),
            about=_begun,
        ),
        Route(
            "POST",
            "/v1/targets",
            set_target,
            Allows.OPERATOR,
            "Plan a rollout to a release and begin it in one, or only plan it.",
            body=TargetRequest,
            answer=Rollout,
            success=(201, 200),
            refusals=(403, 404, 409),
            about=_begun,
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
            "/v1/rollouts/{id}",
            rollout,
            Allows.VIEWER,
            "One rollout, with a reason for every node.",
            parameters=ID,
            answer=Rollout,
            refusals=(404,),
            etag=version,
        ),
        Route(
            "GET",
            "/v1/rollouts/{id}/plan",
            plan_of,
            Allows.VIEWER,
            "The plan that a rollout follows.",
            parameters=ID,
            answer=Plan,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/v1/rollouts/{id}/history",
            history,
            Allows.VIEWER,
            "Every change of state in a rollout, of its nodes and of itself.",
            parameters=ID,
            answer=History,
            refusals=(404,),
        ),
        *(
            _verb_route(*each)
            for each in (
                ("pause", pause, version, "Let nothing new begin."),
                ("resume", resume, version, "Let a paused or halted rollout go on."),
                ("abort", abort, version, "End a rollout: orders that nodes have are taken back."),
                ("retry", retry, version, "Give failed nodes a new order: those named, or all."),
                ("skip", skip, version, "Go on without the nodes that are named."),
                ("promote", promote, version, "End the soak of the wave that is watched."),
            )
        ),
        Route(
            "POST",
            "/v1/releases/{id}/unblock",
            unblock,
            Allows.OPERATOR,
            "Let a release that was rolled back too often be rolled out again.",
            body=VerbRequest,
            parameters={"id": SHA256},
            answer=Unblocked,
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


def _who(call: Call) -> str:
    """Whoever the token belongs to."""
    return call.caller.who if call.caller.operator is None else call.caller.operator.name


def _asked(call: Call) -> VerbRequest:
    """What was asked, with the reason and the nodes in the audit log."""
    asked = call.wire(VerbRequest)
    names = f"{', '.join(asked.nodes[:10])}: " if asked.nodes else ""
    call.detail = f"{names}{asked.reason}"
    return asked
