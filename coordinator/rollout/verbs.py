"""What operators and agents may do to a rollout: `(rollout, ..., now) -> rollout`. Pure.

Each raises ConflictError, with what to do instead, where the rollout is not in a state for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from coordinator.rollout.checks import failed_before
from coordinator.rollout.facts import Fleet
from coordinator.rollout.gates import How, Situation, shut_gates
from coordinator.rollout.observe import listed, passed, put, stopped
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.rollout import (
    BAD,
    FINAL,
    LIVE,
    NodeState,
    Rollout,
    RolloutKind,
    RolloutNode,
    RolloutState,
)
from shared.wire import short

LONGEST_ETA_S = 7 * 86400.0


def pause(rollout: Rollout, who: str, reason: str, now: float) -> Rollout:
    """Nothing new begins; what moves goes on to its end."""
    _check(rollout, "paused", RolloutState.RUNNING)
    words = _by(who, reason)
    nodes = [
        put(node, NodeState.WAITING, stopped("paused", words), now)
        if node.state in (NodeState.WAITING, NodeState.PENDING) and not node.withdrawn
        else node
        for node in rollout.nodes
    ]
    return _into(rollout, RolloutState.PAUSED, words, now, nodes)


def resume(rollout: Rollout, who: str, reason: str, fleet: Fleet, now: float) -> Rollout:
    """Raises ConflictError with the reason where it would stop again at once."""
    _check(rollout, "resumed", RolloutState.PAUSED, RolloutState.HALTED)
    _check_open(rollout, rollout.nodes, fleet, now)
    words = f"resumed {_by(who, reason)}"
    return _into(rollout, RolloutState.RUNNING, words, now, rollout.nodes)


def abort(rollout: Rollout, who: str, reason: str, now: float) -> Rollout:
    """Orders that nodes have are taken back; whoever has begun drops it before its outage, or goes back."""
    moving = any(node.state is NodeState.MOVING for node in rollout.nodes)
    if rollout.state not in (RolloutState.RUNNING, RolloutState.PAUSED) and not (
        rollout.state is RolloutState.HALTED and moving
    ):
        _check(rollout, "aborted", RolloutState.RUNNING, RolloutState.PAUSED)
    words = _by(who, reason)
    nodes = [
        node.model_copy(update={"withdrawn": f"aborted {words}"})
        if node.state in (NodeState.PENDING, NodeState.MOVING) and not node.withdrawn
        else node
        for node in rollout.nodes
    ]
    return _into(rollout, RolloutState.ABORTING, words, now, nodes)


def retry(
    rollout: Rollout, names: Sequence[str], who: str, reason: str, fleet: Fleet, now: float
) -> Rollout:
    """Failed nodes get a new order, because an agent takes each order once. An ended rollout goes on."""
    _check(rollout, "retried", RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)
    wanted = _named(rollout, names) or {node.name for node in rollout.nodes if node.state in BAD}
    if not wanted:
        raise ConflictError("no node of this rollout has failed")
    nodes = []
    for node in rollout.nodes:
        if node.name not in wanted:
            nodes.append(node)
            continue
        if node.state not in (*BAD, NodeState.SKIPPED):
            raise ConflictError(
                f"{node.name} is {node.state}", remedy="only what failed is retried"
            )
        _check_wanted(rollout, node, fleet)
        nodes.append(_again(rollout, node, _by(who, reason), now))
    if rollout.state is RolloutState.RUNNING:
        return rollout.model_copy(update={"nodes": nodes})
    _check_open(rollout, nodes, fleet, now)
    return _into(rollout, RolloutState.RUNNING, f"retried {_by(who, reason)}", now, nodes)


def skip(rollout: Rollout, names: Sequence[str], who: str, reason: str, now: float) -> Rollout:
    """Without these nodes. One that moves cannot be skipped: it is on its way. While a rollout is aborted this gives
    up waiting for a node's answer."""
    given_up = rollout.state is RolloutState.ABORTING
    if not given_up:
        _check(rollout, "changed", RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)
    wanted = _named(rollout, names)
    if not wanted:
        raise ConflictError("no node is named", remedy="say which: rollcall rollout skip NODE")
    words = f"skipped {_by(who, reason)}"
    nodes = []
    for node in rollout.nodes:
        if node.name not in wanted:
            nodes.append(node)
        elif given_up and node.state not in FINAL:
            nodes.append(put(node, NodeState.SKIPPED, f"no answer waited for: {words}", now))
        elif node.state in (NodeState.MOVING, NodeState.DONE):
            remedy = "abort the rollout to stop it" if node.state is NodeState.MOVING else None
            raise ConflictError(f"{node.name} is {node.state}", remedy=remedy)
        elif node.state is NodeState.PENDING:
            nodes.append(node.model_copy(update={"withdrawn": words}))
        else:
            nodes.append(put(node, NodeState.SKIPPED, words, now))
    return rollout.model_copy(update={"nodes": nodes})


def promote(rollout: Rollout, who: str, reason: str) -> Rollout:
    """The wave that is watched has been watched long enough. Its agents watch on; the next wave does not wait."""
    _check(rollout, "promoted", RolloutState.RUNNING, RolloutState.PAUSED)
    open_ = [node for node in rollout.nodes if not passed(node, rollout)]
    wave = min((node.wave for node in open_), default=None)
    if wave is None or wave >= len(rollout.waves):
        raise ConflictError("no wave is watched now")
    mine = [node for node in open_ if node.wave == wave]
    early = [node.name for node in mine if node.phase != "soaking"]
    if early:
        raise ConflictError(
            f"wave {wave + 1} is not only watched yet: {', '.join(early[:10])}",
            remedy="promote it when all of its nodes are soaking",
        )
    waves = list(rollout.waves)
    waves[wave] = waves[wave].model_copy(update={"promoted": True})
    words = f"wave {wave + 1} promoted {_by(who, reason)}"
    return rollout.model_copy(update={"waves": waves, "reason": words})


def claim(rollout: Rollout, order: str, node: str, eta_s: float, now: float) -> Rollout:
    """An agent is about to begin. Raises ConflictError when it may not any more, UntrustedError when the order is
    another node's. A claim that is made again changes nothing but its estimate."""
    mine = order_of(rollout, order)
    if mine.name != node:
        raise UntrustedError(f"order {order} is for {mine.name}, not for {node}")
    if mine.withdrawn:
        raise ConflictError(f"order {order} was taken back: {mine.withdrawn}")
    if mine.state not in (NodeState.PENDING, NodeState.MOVING):
        raise ConflictError(f"order {order} is {mine.state}: {mine.reason}")
    if rollout.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
        raise ConflictError(f"rollout {rollout.id} is {rollout.state}: {rollout.reason}")
    eta = round(now + min(max(eta_s, 0.0), LONGEST_ETA_S), 1)
    said = mine.reason if mine.claimed else "claimed, and not begun yet"
    claimed = put(mine, NodeState.MOVING, said, now, mine.waits_for or [node])
    claimed = claimed.model_copy(update={"claimed": mine.claimed or now, "eta": eta})
    return _replace(rollout, claimed)


def withdraw(rollout: Rollout, order: str, reason: str) -> Rollout:
    """Take one order back. Raises ConflictError when its node has not got it, or has ended."""
    mine = order_of(rollout, order)
    if mine.state not in (NodeState.PENDING, NodeState.MOVING) or mine.withdrawn:
        raise ConflictError(
            f"order {order} is {mine.state}{': ' + mine.withdrawn if mine.withdrawn else ''}",
            remedy=f"to leave the node out: rollcall rollout skip {mine.name}",
        )
    return _replace(rollout, mine.model_copy(update={"withdrawn": short(reason, 500)}))


def order_of(rollout: Rollout, order: str) -> RolloutNode:
    """Raises NotFoundError."""
    for node in rollout.nodes:
        if node.order == order:
            return node
    raise NotFoundError(f"rollout {rollout.id} has no order {order!r}")


def order_id(rollout: str, node: str, attempt: int) -> str:
    """The first is named by the rollout. Each further one has a name of its own, in the same form: agents take
    an order once, and know no other form."""
    if attempt == 1:
        return f"{rollout}:{node}"
    return f"{hashlib.sha256(f'{rollout}/{attempt}'.encode()).hexdigest()[:8]}:{node}"


def _by(who: str, reason: str) -> str:
    """Who said so, and why where that was given; short enough to stand in the reason of every node."""
    return short(f"by {who}: {reason}" if reason else f"by {who}", 450)


def _again(rollout: Rollout, node: RolloutNode, words: str, now: float) -> RolloutNode:
    if rollout.kind is RolloutKind.UNDO and node.state is not NodeState.SKIPPED:
        raise ConflictError(
            f"{node.name} could not go back: {node.reason}",
            remedy=f"see to it on the node: rollcall-agent rollback on {node.name}",
        )
    attempt = node.attempt + 1
    fresh = {
        "attempt": attempt,
        "order": order_id(rollout.id, node.name, attempt),
        "phase": "",
        "claimed": None,
        "eta": None,
        "withdrawn": "",
        "spare": False,
    }
    return put(node.model_copy(update=fresh), NodeState.WAITING, f"attempt {attempt} {words}", now)


def _named(rollout: Rollout, names: Sequence[str]) -> set[str]:
    """Raises NotFoundError for a node that is not in the rollout."""
    known = {node.name for node in rollout.nodes}
    for name in names:
        if name not in known:
            raise NotFoundError(
                f"rollout {rollout.id} has no node {name!r}",
                remedy=f"it has: {listed(sorted(known))}",
            )
    return set(names)


def _check(rollout: Rollout, what: str, *states: RolloutState) -> None:
    if rollout.state in states:
        return
    why = f" ({rollout.reason})" if rollout.reason else ""
    remedy = None if rollout.state in LIVE else "see what there is: rollcall rollout status"
    raise ConflictError(
        f"rollout {rollout.id} is {rollout.state}{why}: it cannot be {what}", remedy=remedy
    )


def _check_wanted(rollout: Rollout, node: RolloutNode, fleet: Fleet) -> None:
    view = fleet.nodes.get(node.name)
    if rollout.kind is RolloutKind.UNDO or view is None:
        return
    if (failed := failed_before(view, rollout.release)) is not None:
        raise ConflictError(failed.reason, remedy=failed.remedy)


def _check_open(rollout: Rollout, nodes: Sequence[RolloutNode], fleet: Fleet, now: float) -> None:
    if all(node.state in FINAL for node in nodes) and not any(node.state in BAD for node in nodes):
        return
    shuts = shut_gates(Situation(rollout, nodes, fleet, now))
    if shuts and shuts[0].how >= How.PAUSE:
        remedy = "retry or skip what failed" if shuts[0].gate == "failures" else None
        raise ConflictError(shuts[0].reason, remedy=remedy)


def _into(
    rollout: Rollout,
    state: RolloutState,
    reason: str,
    now: float,
    nodes: Sequence[RolloutNode],
) -> Rollout:
    """A lease ends with each change by hand: the engine takes a new one with its next step."""
    changes = {
        "nodes": list(nodes),
        "state": state,
        "reason": short(reason),
        "since": now,
        "ended": None,
        "leased_until": None,
        "doubts": {},
    }
    return rollout.model_copy(update=changes)


def _replace(rollout: Rollout, node: RolloutNode) -> Rollout:
    nodes = [node if each.name == node.name else each for each in rollout.nodes]
    return rollout.model_copy(update={"nodes": nodes})
