"""What does this node's orders, put together: a performer for each kind, and when each may begin."""

from __future__ import annotations

from collections.abc import Callable

from agent.conductor import Conductor
from agent.freezes import Freezes
from agent.orders.decide import Now, hold_back
from agent.orders.kept import KeptOrders
from agent.orders.logs import CollectLogs
from agent.orders.ordering import Door, Ordering
from agent.orders.performer import Hands, Performer
from agent.orders.restart import Restart
from agent.orders.rollback import Rollback
from agent.readiness.logs.gateway import GatewayLogs
from agent.upgrade.context import Deps
from shared.messages import Verdict


def make_ordering(
    node: str,
    deps: Deps,
    hands: Hands,
    conductor: Conductor,
    freezes: Freezes,
    logs: GatewayLogs,
    door: Door,
    on_change: Callable[[], None],
    *more: Performer,
) -> Ordering:
    """`more` are performers of kinds that others know of."""

    def waits(kind: str) -> str:
        record = conductor.record
        moving = record.upgrade if record is not None and not record.over else ""
        green = deps.readiness.document().status is Verdict.GREEN
        return hold_back(kind, Now(freezes.now(), green, moving))

    performers: tuple[Performer, ...] = (
        Restart(deps, hands),
        Rollback(conductor.runner),
        CollectLogs(node, logs, deps.clock),
        *more,
    )
    kept = KeptOrders(deps.layout.home)
    return Ordering(kept, door, performers, waits, deps.clock, on_change)
