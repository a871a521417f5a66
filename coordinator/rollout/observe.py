"""Where each node of a rollout is, from its own last report. Pure. Only a report of this very order counts."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.rollout.facts import Fleet
from shared.attesting import quorum
from shared.messages import Verdict
from shared.report import UpgradeReport
from shared.rollout import FINAL, NodeState, NodeView, Rollout, RolloutNode
from shared.wire import short

SHOWN_NAMES = 16
"""Of those that a node waits for: in a wave of hundreds the first say enough."""
SERVING = frozenset({"soaking", "done"})
"""Phases in which an upgraded node takes traffic again. In `good` its share is still being put back."""


def observe(node: RolloutNode, rollout: Rollout, fleet: Fleet, now: float) -> RolloutNode:
    view = fleet.nodes.get(node.name)
    if node.state in FINAL:
        return node
    if view is None:
        return put(node, NodeState.FAILED, "it was revoked", now)
    upgrade = begun(node, view)
    if upgrade is None:
        if node.withdrawn and node.order in view.withdrawn:
            return put(node, NodeState.SKIPPED, f"before it began: {node.withdrawn}", now)
        if node.state is NodeState.MOVING and view.waiting:
            return put(node, NodeState.MOVING, view.waiting, now, [node.name])
        return node
    node = node.model_copy(update={"phase": upgrade.phase})
    if upgrade.outcome is None:
        detail = f"is taken back; {_said(upgrade)}" if node.withdrawn else _said(upgrade)
        looking = upgrade.phase == "attested" and node.undoes is None
        whom = _unsigned(node, view, fleet) if looking else [node.name]
        return put(node, NodeState.MOVING, detail, now, whom)
    return _ended(node, rollout, view, fleet, now)


def _said(upgrade: UpgradeReport) -> str:
    if not upgrade.detail or upgrade.detail.startswith(upgrade.phase):
        return upgrade.detail or upgrade.phase
    return f"{upgrade.phase}: {upgrade.detail}"


def begun(node: RolloutNode, view: NodeView) -> UpgradeReport | None:
    """What the node says of this order; None while it has not begun it. To undo an order is to go back from it."""
    upgrade = view.upgrade
    if upgrade is None:
        return None
    if node.undoes is None:
        return upgrade if upgrade.order == node.order else None
    going_back = upgrade.order == node.undoes and upgrade.outcome != "done"
    return upgrade if going_back else None


def _ended(
    node: RolloutNode, rollout: Rollout, view: NodeView, fleet: Fleet, now: float
) -> RolloutNode:
    upgrade = view.upgrade
    outcome = None if upgrade is None else upgrade.outcome
    reason = "" if upgrade is None else upgrade.reason
    if node.withdrawn and outcome in ("dropped", "rolled_back"):
        if node.undoes is not None:
            return put(node, NodeState.SKIPPED, f"it had gone back already: {node.withdrawn}", now)
        state = NodeState.SKIPPED if outcome == "dropped" else NodeState.ROLLED_BACK
        words = f"dropped before the outage: {node.withdrawn}"
        return put(node, state, words if outcome == "dropped" else node.withdrawn, now)
    if outcome == ("done" if node.undoes is None else "rolled_back"):
        missing, names = _missing(node, rollout, view, fleet)
        if missing:
            return put(node, NodeState.MOVING, missing, now, names)
        return put(node, NodeState.DONE, _proof(node, fleet), now)
    state = NodeState.ROLLED_BACK if outcome == "rolled_back" else NodeState.FAILED
    return put(node, state, reason, now)


def _missing(
    node: RolloutNode, rollout: Rollout, view: NodeView, fleet: Fleet
) -> tuple[str, list[str]]:
    """What is still wanting before a node counts (P2), and of whom; empty when nothing is. A node that went back
    runs what its peers have attested before."""
    if view.release != (node.release or rollout.release):
        return "the node does not report the release yet", [node.name]
    if view.status is not Verdict.GREEN:
        return f"the node is {view.status}: {view.reason}", [node.name]
    if node.undoes is not None:
        return "", []
    unsigned = _unsigned(node, view, fleet)
    return (f"attestations of {listed(unsigned)}", unsigned) if unsigned else ("", [])


def _proof(node: RolloutNode, fleet: Fleet) -> str:
    """What a node that is done rests on."""
    if node.undoes is not None:
        return "it went back, and is green"
    peers = quorum(node.name, fleet.nodes, fleet.witnesses)
    return f"green, and seen so by {listed(sorted(peers))}" if peers else "green"


def _unsigned(node: RolloutNode, view: NodeView, fleet: Fleet) -> list[str]:
    """Peers whose green of this node is still wanting."""
    wanted = quorum(node.name, fleet.nodes, fleet.witnesses)
    return sorted(set(wanted) - set(view.attested_by))


def is_out(node: RolloutNode) -> bool:
    """Whether it takes no traffic, or soon will not, for the sake of the rollout."""
    if node.state is NodeState.PENDING:
        return True
    return node.state is NodeState.MOVING and node.phase not in SERVING


def passed(node: RolloutNode, rollout: Rollout) -> bool:
    """Whether the next wave does not wait for it any more."""
    soaking = node.state is NodeState.MOVING and node.phase == "soaking"
    return node.state in FINAL or (soaking and rollout.is_promoted(node.wave))


def listed(names: Sequence[str]) -> str:
    """Names in words, not more than anybody reads."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def stopped(what: str, reason: str) -> str:
    """`paused by first: lunch`, and `paused: the release has expired`."""
    return f"{what} {reason}" if reason.startswith("by ") else f"{what}: {reason}"


def put(
    node: RolloutNode,
    state: NodeState,
    reason: str,
    now: float,
    waits_for: Sequence[str] = (),
    since: float | None = None,
) -> RolloutNode:
    """The node in this state; `since` moves when the state or the names that it waits for do, unless it is given."""
    reason, names = short(reason), sorted(waits_for)[:SHOWN_NAMES]
    if (node.state, node.reason, node.waits_for) == (state, reason, names):
        return node
    same = node.state is state and node.waits_for == names
    changes = {
        "state": state,
        "reason": reason,
        "waits_for": names,
        "since": since if since is not None else node.since if same else now,
    }
    return node.model_copy(update=changes)
