"""What else the nodes of a rollout were given to do in its time: their orders, and the capabilities that were published
then. Archives of before these were kept have neither, and say so."""

from __future__ import annotations

from typing import Any

from coordinator.evidence.ground import Ground, in_short, rows_of
from shared.capability import CapabilityRun
from shared.errors import BadInputError, UntrustedError
from shared.orders import OrderView

ORDERS, RUNS = "orders.json", "capabilities.json"
NOT_KEPT = "none are in this archive: it was written before they were kept"


def check_orders(ground: Ground) -> str:
    """Each is of a node of the rollout, and what happened to it leads to the state that it is in."""
    if ORDERS not in ground.members:
        return NOT_KEPT
    names = {node.get("name") for node in ground.nodes()}
    wrong, found = [], rows_of(ground, ORDERS)
    for row in found:
        order, last = OrderView.from_value(row.get("order")), _last(row)
        if order.node not in names:
            wrong.append(f"order {order.id} is of {order.node}, which is not in the rollout")
        elif last != order.state:
            wrong.append(f"order {order.id} is {order.state}, and its history ends with {last}")
    if wrong:
        raise UntrustedError(in_short(wrong))
    return f"{len(found)} beside the rollout's own, each with its history"


def _last(row: dict[str, Any]) -> str:
    events = row.get("events")
    if not isinstance(events, list) or not events or not isinstance(events[-1], dict):
        raise BadInputError(f"{ORDERS} has an order without a history")
    return str(events[-1].get("state"))


def check_capabilities(ground: Ground) -> str:
    """Each run that can be read, and how it ended."""
    if RUNS not in ground.members:
        return NOT_KEPT
    runs = [CapabilityRun.from_value(row) for row in rows_of(ground, RUNS)]
    said = [f"{run.verb} {run.label} {run.state}" for run in runs]
    return in_short(said) if said else "nothing was published or unpublished then"
