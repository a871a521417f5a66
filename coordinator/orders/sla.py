"""Which promises about an order are broken: pure, and the same for every kind of order."""

from __future__ import annotations

from shared.fleetsettings import SlaSettings
from shared.orders import OPEN, Breach, BreachKind, FoundBreach, OrderState, OrderView


def breaches_of(order: OrderView, sla: SlaSettings, now: float) -> list[Breach]:
    """What holds now, at most one of each kind, whether it was noted before or not. A node that promised to take
    longer than `complete_within` is held to its own word."""
    if order.state not in OPEN:
        return []
    waited = now - order.created
    if order.state is OrderState.PENDING:
        if waited <= sla.claim_within:
            return []
        return [
            _breach(
                BreachKind.NOT_CLAIMED, now, f"not claimed within {_say(sla.claim_within)}", waited
            )
        ]
    found = []
    overdue = order.eta is not None and now > order.eta
    if order.eta is not None and overdue:
        late = now - order.eta
        found.append(
            _breach(BreachKind.ETA_PASSED, now, f"its ETA passed {_say(late)} ago", waited)
        )
    silent = now - (order.updated or order.since)
    if silent > sla.update_within:
        said = f"no update for {_say(silent)}, at least one within {_say(sla.update_within)} is due"
        found.append(_breach(BreachKind.NO_UPDATE, now, said, waited))
    if waited > sla.complete_within and (order.eta is None or overdue):
        said = f"not completed within {_say(sla.complete_within)}"
        found.append(_breach(BreachKind.NOT_COMPLETED, now, said, waited))
    return found


def _breach(kind: BreachKind, now: float, said: str, waited: float) -> Breach:
    return Breach(kind=kind, reason=f"{said}; open for {_say(waited)}", at=now)


def _say(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plan_sweep(
    orders: list[OrderView], sla: SlaSettings, now: float, *, record_only: bool
) -> list[FoundBreach]:
    """Every breach that holds, with whom to tell. Each is told of once, ever; at most `max_messages_per_sweep`
    of them now, those of the oldest orders first. The rest waits for the next sweep."""
    left = 0 if record_only else sla.max_messages_per_sweep
    found = []
    for order in orders:
        noted = {breach.kind: breach for breach in order.breaches}
        for breach in breaches_of(order, sla, now):
            known = noted.get(breach.kind)
            told: list[str] = []
            if left > 0 and (known is None or known.told is None):
                told = list(dict.fromkeys([order.node, *sla.fyi_agents]))
                left -= 1
            found.append(
                FoundBreach(
                    order=order.id,
                    node=order.node,
                    kind=breach.kind,
                    reason=breach.reason,
                    new=known is None,
                    told=told,
                )
            )
    return found
