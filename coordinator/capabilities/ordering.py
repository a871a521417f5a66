"""Which orders a run needs, and which it needs no more: pure."""

from __future__ import annotations

from coordinator.capabilities.pipeline import Wanted
from shared.capability import CapabilityRun, NodeStep, RunState, Verb
from shared.orders import OrderKind


def wanted(run: CapabilityRun) -> list[Wanted]:
    """Orders that the run has decided on and that it has no id of yet."""
    found = []
    for node in run.nodes:
        if node.step is NodeStep.ORDERED and node.order is None:
            kind = (
                OrderKind.INSTALL_CAPABILITY
                if run.verb is Verb.PUBLISH
                else OrderKind.REMOVE_CAPABILITY
            )
            key = f"{run.id}:{node.node}:go"
            found.append(Wanted(node.node, kind, run.capability, run.label, key, back=False))
        if node.step is NodeStep.RETURNING and node.way_back is None:
            again = run.previous is not None and node.node in run.previous_nodes
            kind = OrderKind.INSTALL_CAPABILITY if again else OrderKind.REMOVE_CAPABILITY
            label = run.previous_label if again else run.label
            subject = (again and run.previous) or run.capability
            key = f"{run.id}:{node.node}:back"
            found.append(Wanted(node.node, kind, subject, label, key, back=True))
    return found


def unwanted(run: CapabilityRun) -> list[str]:
    """Orders that are taken back before the way back is ordered, as far as they are open."""
    if run.state is not RunState.ROLLING_BACK:
        return []
    return [
        node.order
        for node in run.nodes
        if node.step is NodeStep.RETURNING and node.way_back is None and node.order is not None
    ]


def with_order(run: CapabilityRun, want: Wanted, order: str) -> CapabilityRun:
    name = "way_back" if want.back else "order"
    nodes = [
        node.model_copy(update={name: order}) if node.node == want.node else node
        for node in run.nodes
    ]
    return run.model_copy(update={"nodes": nodes})
