"""The rollout as a function: (rollout, what is known of the nodes, now) -> rollout, with a reason for
every node. It sets flags by moving a node to `pending`; what an agent does with one is its own matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.rollout.facts import SILENT_AFTER_S, Fleet
from coordinator.rollout.gates import How, Shut, Situation, shut_gates
from coordinator.rollout.observe import listed, observe, passed, put, stopped
from coordinator.rollout.slots import turns
from shared.freezing import By
from shared.rollout import (
    BAD,
    FINAL,
    NodeState,
    Rollout,
    RolloutNode,
    RolloutState,
)
from shared.wire import short

__all__ = ["LEASE_S", "SILENT_AFTER_S", "Fleet", "decide"]

LEASE_S = 900.0
"""A coordinator that was away for less goes on as if nothing had happened: a restart, an upgrade, a reboot of its
host. After more, what the rollout rests on may be out of date, and an operator looks first."""


def decide(rollout: Rollout, fleet: Fleet, now: float) -> Rollout:
    """Idempotent: with the same knowledge a second call changes nothing."""
    nodes = [observe(node, rollout, fleet, now) for node in rollout.nodes]
    after = rollout.model_copy(update={"nodes": nodes})
    match rollout.state:
        case RolloutState.RUNNING:
            after = _running(after, fleet, now)
        case RolloutState.PAUSED:
            after = _paused(after, fleet, now)
        case RolloutState.ABORTING:
            after = _aborting(after, now)
        case _:
            pass
    return _with_eta(rollout, after, now)


def _running(rollout: Rollout, fleet: Fleet, now: float) -> Rollout:
    if rollout.leased_until is not None and now > rollout.leased_until:
        away = now - rollout.leased_until + LEASE_S
        return _pause(
            rollout, f"nobody led it for {away / 60:.0f} minutes; look, and resume it", now
        )
    shuts = shut_gates(Situation(rollout, rollout.nodes, fleet, now))
    rollout, shuts = _doubt(rollout, shuts, now)
    worst = shuts[0] if shuts else None
    if worst is not None and worst.how is How.HALT:
        return _halt(rollout, worst.reason, now, worst.waits_for)
    if all(node.state in FINAL for node in rollout.nodes) and not fleet.widening:
        return _end(rollout, now)
    if worst is not None and worst.how is How.PAUSE:
        return _pause(rollout, worst.reason, now, worst.waits_for)
    nodes = _advance(rollout, worst, fleet, now)
    reason = short("; also: ".join(shut.reason for shut in shuts))
    return _leased(rollout.model_copy(update={"nodes": nodes, "reason": reason}), now)


def _doubt(rollout: Rollout, shuts: list[Shut], now: float) -> tuple[Rollout, list[Shut]]:
    """Since when each gate is shut. Doubt that has lasted becomes a pause, and is then the gravest."""
    since = {
        shut.gate: rollout.doubts.get(shut.gate, now) for shut in shuts if shut.how <= How.DOUBT
    }
    found = []
    for shut in shuts:
        if shut.how is How.DOUBT and now - since[shut.gate] >= shut.patience_s:
            found.append(Shut(shut.gate, How.PAUSE, shut.reason, shut.waits_for))
        else:
            found.append(shut)
    found.sort(key=lambda shut: -shut.how if shut.how >= How.PAUSE else 0)
    return rollout.model_copy(update={"doubts": since}), found


def _paused(rollout: Rollout, fleet: Fleet, now: float) -> Rollout:
    """What ends a rollout ends a paused one too; whatever else gets better, it stays paused."""
    shuts = shut_gates(Situation(rollout, rollout.nodes, fleet, now))
    if shuts and shuts[0].how is How.HALT:
        return _halt(rollout, shuts[0].reason, now, shuts[0].waits_for)
    if all(node.state in FINAL for node in rollout.nodes):
        return _end(rollout, now)
    return rollout.model_copy(
        update={"nodes": _stay(rollout, stopped("paused", rollout.reason), now)}
    )


def _aborting(rollout: Rollout, now: float) -> Rollout:
    busy = [
        node.name for node in rollout.nodes if node.state in (NodeState.PENDING, NodeState.MOVING)
    ]
    nodes = [
        put(node, NodeState.SKIPPED, stopped("aborted", rollout.reason), now)
        if node.state is NodeState.WAITING
        else node
        for node in rollout.nodes
    ]
    state = RolloutState.ABORTING if busy else RolloutState.ABORTED
    return _into(rollout.model_copy(update={"nodes": nodes}), state, rollout.reason, now)


def _end(rollout: Rollout, now: float) -> Rollout:
    """Below the limits failures do not stop it; they are not a success either."""
    bad = [node.name for node in rollout.nodes if node.state in BAD]
    if bad:
        return _halt(rollout, f"all others have moved; failed: {listed(bad)}", now)
    if rollout.nodes and not any(node.state is NodeState.DONE for node in rollout.nodes):
        return _into(rollout, RolloutState.ABORTED, "no node has moved: all were left out", now)
    return _into(rollout, RolloutState.SUCCEEDED, "", now)


def _halt(rollout: Rollout, reason: str, now: float, whom: Sequence[str] = ()) -> Rollout:
    nodes = _stay(rollout, f"stays: {reason}", now, whom)
    halted = rollout.model_copy(update={"nodes": nodes})
    return _into(halted, RolloutState.HALTED, reason, now)


def _pause(rollout: Rollout, reason: str, now: float, whom: Sequence[str] = ()) -> Rollout:
    nodes = _stay(rollout, f"paused: {reason}", now, whom)
    paused = rollout.model_copy(update={"nodes": nodes, "leased_until": None})
    return _into(paused, RolloutState.PAUSED, reason, now)


def _into(rollout: Rollout, state: RolloutState, reason: str, now: float) -> Rollout:
    over = state in (RolloutState.HALTED, RolloutState.ABORTED, RolloutState.SUCCEEDED)
    changes = {
        "state": state,
        "reason": short(reason),
        "since": rollout.since if rollout.state is state else now,
        "ended": (rollout.ended or now) if over else None,
    }
    return rollout.model_copy(update=changes)


def _leased(rollout: Rollout, now: float) -> Rollout:
    """Renewed when a third is used up, so that not every step is a write."""
    until = rollout.leased_until
    if until is not None and until - now > LEASE_S * 2 / 3:
        return rollout
    return rollout.model_copy(update={"leased_until": now + LEASE_S})


def _advance(rollout: Rollout, shut: Shut | None, fleet: Fleet, now: float) -> list[RolloutNode]:
    """Set the flags of the first wave that is not over, as far as gates and slots allow."""
    wave = min(
        (node.wave for node in rollout.nodes if not passed(node, rollout)),
        default=len(rollout.waves),
    )
    ahead = [node.name for node in rollout.nodes if node.wave == wave and not passed(node, rollout)]
    taken_back = shut is not None and not shut.keeps_flags
    mine = {} if shut is not None else turns(rollout, rollout.nodes, wave, fleet)
    found = []
    for node in rollout.nodes:
        if node.state is NodeState.PENDING:
            found.append(_pending(node, shut if taken_back else None, rollout, fleet, now))
        elif node.state is not NodeState.WAITING:
            found.append(node)
        elif node.wave > wave:
            reason = f"waits for {listed(ahead)}{_frozen(node, fleet)}"
            found.append(put(node, NodeState.WAITING, reason, now, ahead))
        elif shut is not None:
            found.append(_kept(node, shut, rollout, now))
        elif mine[node.name].begin:
            flagged = node.model_copy(update={"flagged": now, "spare": mine[node.name].spare})
            found.append(_pending(flagged, None, rollout, fleet, now))
        else:
            turn = mine[node.name]
            found.append(put(node, NodeState.WAITING, turn.reason, now, turn.waits_for))
    return found


def _kept(node: RolloutNode, shut: Shut, rollout: Rollout, now: float) -> RolloutNode:
    """It waits for as long as this gate is shut."""
    since = rollout.doubts.get(shut.gate, now)
    return put(node, NodeState.WAITING, shut.reason, now, shut.waits_for, since)


def _pending(
    node: RolloutNode, shut: Shut | None, rollout: Rollout, fleet: Fleet, now: float
) -> RolloutNode:
    """A flag that nobody took up is taken back where nothing may begin."""
    if shut is not None and not node.withdrawn:
        return _kept(node, shut, rollout, now)
    view = fleet.nodes.get(node.name)
    waits = view.waiting if view is not None and view.waiting else "its flag is set"
    return put(node, NodeState.PENDING, waits, now, [node.name])


def _frozen(node: RolloutNode, fleet: Fleet) -> str:
    """What will keep this node when its turn comes, if that is a freeze by hand: a red halts everybody."""
    view = fleet.nodes.get(node.name)
    by_hand = [] if view is None else [each.words for each in view.freezes if each.by is By.HAND]
    return "".join(f"; {words}" for words in by_hand)


def _stay(rollout: Rollout, reason: str, now: float, whom: Sequence[str] = ()) -> list[RolloutNode]:
    """Flags that nobody took up are taken back, except where the order was withdrawn: then the node answers. `whom`
    counts from when the reason is a new one."""
    reason = short(reason)
    return [
        put(node, NodeState.WAITING, reason, now, node.waits_for if node.reason == reason else whom)
        if node.state in (NodeState.WAITING, NodeState.PENDING) and not node.withdrawn
        else node
        for node in rollout.nodes
    ]


def _moves(rollout: Rollout) -> bool:
    busy = (NodeState.PENDING, NodeState.MOVING)
    return any(node.state in busy and not passed(node, rollout) for node in rollout.nodes)


def _with_eta(before: Rollout, after: Rollout, now: float) -> Rollout:
    """When all should be over, by the plan's estimates; looked at again when a node has moved on. Nobody knows it
    while nothing moves and a gate is shut."""
    if after.state is not RolloutState.RUNNING or (after.reason and not _moves(after)):
        return after.model_copy(update={"eta": None})
    states = [(node.state, node.phase) for node in after.nodes]
    if before.eta is not None and states == [(node.state, node.phase) for node in before.nodes]:
        return after
    left = 0.0
    for number, wave in enumerate(after.waves):
        mine = [node for node in after.nodes if node.wave == number]
        open_ = sum(not passed(node, after) for node in mine)
        left += wave.estimated_s * open_ / len(mine) if mine else 0.0
    watched = [
        node.flagged + after.waves[node.wave].estimated_s
        for node in after.nodes
        if node.state is NodeState.MOVING and passed(node, after) and node.flagged is not None
    ]
    return after.model_copy(update={"eta": round(max([now + left, *watched]), 1)})
