"""The rollout as a function: (rollout, what is known of the nodes, now) -> rollout, with a reason for
every node. It sets flags by moving a node to `pending`; what an agent does with one is its own matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.attesting import quorum
from shared.freezing import By
from shared.messages import Verdict
from shared.report import Absence
from shared.rollout import (
    FINAL,
    NodeState,
    NodeView,
    RedView,
    Rollout,
    RolloutNode,
    RolloutState,
)
from shared.wire import short

SILENT_AFTER_S = 30.0


@dataclass(frozen=True)
class Fleet:
    """What the decision rests on. `peers` are the live nodes of the roster."""

    nodes: Mapping[str, NodeView]
    reds: list[RedView]
    witnesses: tuple[str, ...] = ()
    """By the fleet document; without any, every node is one."""

    def open_reds(self) -> list[RedView]:
        return [red for red in self.reds if red.open]

    def silent(self, now: float) -> list[str]:
        return sorted(
            name
            for name, node in self.nodes.items()
            if node.heard is None or now - node.heard > SILENT_AFTER_S
        )

    def unreached(self, now: float) -> list[str]:
        """Nodes that their peers do not reach, in words. What a node said that is itself not heard of any more
        is out of date."""
        found: dict[str, list[tuple[str, Absence]]] = {}
        mute = set(self.silent(now))
        for name in sorted(self.nodes.keys() - mute):
            for peer, absence in self.nodes[name].away.items():
                if peer in self.nodes:
                    found.setdefault(peer, []).append((name, absence))
        return [_describe_absence(peer, said) for peer, said in sorted(found.items())]


def _describe_absence(peer: str, said: list[tuple[str, Absence]]) -> str:
    since = datetime.fromtimestamp(min(each.since for _, each in said), UTC)
    names = ", ".join(name for name, _ in said)
    if all(each.left for _, each in said):
        return f"{peer} said goodbye to {names} at {since:%H:%M:%S} UTC"
    return f"{peer} is silent to {names} since {since:%H:%M:%S} UTC"


def decide(rollout: Rollout, fleet: Fleet, now: float) -> Rollout:
    """Idempotent: with the same knowledge a second call changes nothing."""
    nodes = [_observe(node, rollout, fleet, now) for node in rollout.nodes]
    if rollout.state is RolloutState.RUNNING:
        state, reason = _verdict(nodes, fleet)
        if state is RolloutState.RUNNING:
            nodes, reason = _advance(nodes, fleet, now)
        else:
            nodes = [_stay(node, reason, now) for node in nodes]
    else:
        state, reason = rollout.state, rollout.reason
    ended = rollout.ended
    if state is not RolloutState.RUNNING and ended is None:
        ended = now
    return rollout.model_copy(
        update={"nodes": nodes, "state": state, "reason": reason, "ended": ended}
    )


def _observe(node: RolloutNode, rollout: Rollout, fleet: Fleet, now: float) -> RolloutNode:
    """Where a node is, from its own last report; only a report of this very order counts."""
    view = fleet.nodes.get(node.name)
    if node.state in FINAL:
        return node
    if view is None:
        return _with(node, NodeState.FAILED, "it was revoked", now)
    upgrade = view.upgrade
    if upgrade is None or upgrade.order != node.order:
        return node
    if upgrade.outcome is None:
        detail = f"{upgrade.phase}: {upgrade.detail}" if upgrade.detail else upgrade.phase
        return _with(node, NodeState.MOVING, detail, now)
    if upgrade.outcome == "done":
        missing = _missing(node, rollout, view, fleet)
        if missing:
            return _with(node, NodeState.MOVING, missing, now)
        return _with(node, NodeState.DONE, "", now)
    state = NodeState.ROLLED_BACK if upgrade.outcome == "rolled_back" else NodeState.FAILED
    return _with(node, state, upgrade.reason, now)


def _missing(node: RolloutNode, rollout: Rollout, view: NodeView, fleet: Fleet) -> str:
    """What is still wanting before an upgraded node counts (P2); empty when nothing is."""
    if view.release != rollout.release:
        return "the node does not report the release yet"
    if view.status is not Verdict.GREEN:
        return f"the node is {view.status}: {view.reason}"
    wanted = quorum(node.name, fleet.nodes, fleet.witnesses)
    unsigned = sorted(set(wanted) - set(view.attested_by))
    return f"attestations of {', '.join(unsigned)}" if unsigned else ""


def _verdict(nodes: list[RolloutNode], fleet: Fleet) -> tuple[RolloutState, str]:
    for red in fleet.open_reds():
        ends = f"ends when {red.origin} clears it, or operators do: rollcall red clear {red.key}"
        return RolloutState.HALTED, short(f"red of {red.origin}: {short(red.reason, 1000)}; {ends}")
    for node in nodes:
        if node.state in (NodeState.ROLLED_BACK, NodeState.FAILED):
            return RolloutState.HALTED, short(f"{node.name} {node.state}: {node.reason}")
    if all(node.state is NodeState.DONE for node in nodes):
        return RolloutState.SUCCEEDED, ""
    return RolloutState.RUNNING, ""


def _advance(nodes: list[RolloutNode], fleet: Fleet, now: float) -> tuple[list[RolloutNode], str]:
    """Set the flags of the first wave that is not done, if nobody is unheard of."""
    wave = min(node.wave for node in nodes if node.state is not NodeState.DONE)
    ahead = [node.name for node in nodes if node.wave == wave and node.state is not NodeState.DONE]
    paused, taken_back = _pause(fleet, now)
    moved = []
    for node in nodes:
        if taken_back and node.state is NodeState.PENDING:
            moved.append(_with(node, NodeState.WAITING, paused, now))
        elif node.wave == wave and node.state is NodeState.WAITING:
            if paused:
                moved.append(_with(node, NodeState.WAITING, paused, now))
            else:
                moved.append(_with(node, NodeState.PENDING, "its flag is set", now))
        elif node.state is NodeState.PENDING:
            view = fleet.nodes.get(node.name)
            waits = view.waiting if view is not None and view.waiting else "its flag is set"
            moved.append(_with(node, NodeState.PENDING, waits, now))
        elif node.state is NodeState.WAITING:
            reason = f"waits for {', '.join(ahead)}{_frozen(node, fleet)}"
            moved.append(_with(node, NodeState.WAITING, reason, now))
        else:
            moved.append(node)
    return moved, paused


def _pause(fleet: Fleet, now: float) -> tuple[str, bool]:
    """Why nothing new begins, empty when it may, and whether flags that nobody took up are taken back: where peers
    do not reach a node there would be no attestation of it. It goes on by itself once they do."""
    if unreached := fleet.unreached(now):
        return short(f"paused: {'; '.join(unreached)}"), True
    silent = fleet.silent(now)
    return f"waits to hear of {', '.join(silent)}" if silent else "", False


def _frozen(node: RolloutNode, fleet: Fleet) -> str:
    """What will keep this node when its turn comes, if that is a freeze by hand: a red halts everybody."""
    view = fleet.nodes.get(node.name)
    by_hand = [] if view is None else [each.words for each in view.freezes if each.by is By.HAND]
    return "".join(f"; {words}" for words in by_hand)


def _stay(node: RolloutNode, reason: str, now: float) -> RolloutNode:
    """After a halt the flags that nobody took up are taken back."""
    if node.state in (NodeState.WAITING, NodeState.PENDING):
        return _with(node, NodeState.WAITING, f"stays: {reason}", now)
    return node


def _with(node: RolloutNode, state: NodeState, reason: str, now: float) -> RolloutNode:
    reason = short(reason)
    if node.state is state and node.reason == reason:
        return node
    since = node.since if node.state is state else now
    return node.model_copy(update={"state": state, "reason": reason, "since": since})
