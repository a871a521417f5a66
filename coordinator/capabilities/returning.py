"""The way back of a publish that failed: pure. Every node that may have the new version goes to the one before, or to
none; a node that has undone it itself needs no order."""

from __future__ import annotations

from collections.abc import Mapping

from shared.capability import CapabilityRun, NodeStep, RunNode, RunState
from shared.orders import OPEN, OrderState, OrderView
from shared.wire import short

_UNTOUCHED = frozenset({NodeStep.WAITING, NodeStep.RETURNED})


def begin_return(run: CapabilityRun, reason: str, now: float) -> CapabilityRun:
    """Every node that was given an order and has not undone it is on its way back."""
    nodes = [
        node if node.step in _UNTOUCHED else node.model_copy(update={"step": NodeStep.RETURNING})
        for node in run.nodes
    ]
    changes = {"state": RunState.ROLLING_BACK, "reason": reason, "since": now, "nodes": nodes}
    return run.model_copy(update=changes)


def go_back(run: CapabilityRun, orders: Mapping[str, OrderView], now: float) -> CapabilityRun:
    """Ends when every node has arrived, or cannot."""
    nodes = [_returned(node, orders) for node in run.nodes]
    after = run.model_copy(update={"nodes": nodes})
    if any(node.step is NodeStep.RETURNING for node in nodes):
        return after
    stuck = [node.node for node in nodes if node.step is NodeStep.STUCK]
    end = f"; and {', '.join(stuck)} cannot go back" if stuck else "; rolled back"
    ended = {"state": RunState.FAILED, "reason": short(f"{run.reason}{end}"), "since": now}
    return after.model_copy(update=ended)


def _returned(node: RunNode, orders: Mapping[str, OrderView]) -> RunNode:
    order = None if node.way_back is None else orders.get(node.way_back)
    if node.step is not NodeStep.RETURNING or order is None or order.state in OPEN:
        return node
    good = order.state is OrderState.COMPLETED
    step = NodeStep.RETURNED if good else NodeStep.STUCK
    return node.model_copy(update={"step": step, "reason": short(order.reason or order.state)})
