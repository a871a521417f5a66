"""`/v1/rollouts/{id}/attestations`: who has looked at whom in a rollout, and what they saw."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Resource, Route
from coordinator.rollout.engine import Engine
from coordinator.store.queries import Queries
from shared.messages import Attestation, Verdict, read_message
from shared.wire import NodeName, Order, Reason, Sha256, Wire


class Look(Wire):
    """A peer's signed word on one node. `ready_probe_sha256` is what it saw; None where it saw nothing."""

    subject: NodeName
    by: NodeName
    order: Order
    verdict: Verdict
    ready_probe_sha256: Sha256 | None
    reason: Reason = ""
    issued: float


class Looks(Wire):
    """In the order they came; of several of one peer on one node the last one counts."""

    looks: list[Look]


class AttestationsApi(Resource):
    def __init__(self, queries: Queries, engine: Engine) -> None:
        self._queries, self._engine = queries, engine

    async def show(self, call: Call) -> Looks:
        """Signatures were checked when the messages came."""
        rollout = await self._engine.rollout(call.parameters["id"])
        found = []
        for stored in await self._queries.messages_about([node.order for node in rollout.nodes]):
            payload = read_message(stored.raw.encode()).payload
            if isinstance(payload.body, Attestation):
                found.append(_look(payload.origin, payload.issued, payload.body))
        return Looks(looks=found)

    routes = (
        Route(
            "GET",
            "/v1/rollouts/{id}/attestations",
            show,
            Allows.VIEWER,
            "Who has looked at whom in a rollout, and what they saw.",
            parameters={"id": SHORT_ID},
            answer=Looks,
            refusals=(404,),
        ),
    )


def _look(by: str, issued: float, said: Attestation) -> Look:
    return Look(
        subject=said.subject,
        by=by,
        order=said.order,
        verdict=said.verdict,
        ready_probe_sha256=said.ready_probe_sha256,
        reason=said.reason,
        issued=issued,
    )
