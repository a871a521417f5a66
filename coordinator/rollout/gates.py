"""What stops a rollout: one function a gate, each `situation -> why it is shut, or None`. Pure.

A gate that is shut says how: nothing new begins while it is (wait), the rollout is paused where that lasts (doubt),
it is paused at once, or it ends (halt). What is paused or halted stays so until an operator says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from coordinator.rollout.checks import blocked_words
from coordinator.rollout.facts import Fleet
from coordinator.rollout.observe import is_out, listed
from coordinator.rollout.windows import shut as window_shut
from shared.messages import Verdict
from shared.rollout import BAD, FINAL, NodeState, Rollout, RolloutKind, RolloutNode
from shared.wire import short

PATIENCE_S = 30.0
"""How long doubt may last: agents restart, and readings are late on a busy host."""
SETTLING_S = 180.0
"""As long as an agent gives a gateway to be proven: so long a node may take to be green that has only just ended."""


SHOWN = 5
"""Nodes that are given with their own words."""


class How(IntEnum):
    WAIT = 0
    DOUBT = 1
    PAUSE = 2
    HALT = 3


@dataclass(frozen=True)
class Shut:
    """`keeps_flags` leaves flags that nobody has taken up where they are. `patience_s` is how long doubt may last."""

    gate: str
    how: How
    reason: str
    waits_for: tuple[str, ...] = ()
    keeps_flags: bool = False
    patience_s: float = PATIENCE_S


@dataclass(frozen=True)
class Situation:
    """`nodes` are as they were just observed."""

    rollout: Rollout
    nodes: Sequence[RolloutNode]
    fleet: Fleet
    now: float


Gate = Callable[[Situation], Shut | None]


def open_red(at: Situation) -> Shut | None:
    """P3. An undo began although these were open; only those that came after count there."""
    undo = at.rollout.kind is RolloutKind.UNDO
    for red in at.fleet.open_reds():
        if undo and red.issued <= at.rollout.created:
            continue
        ends = f"ends when {red.origin} clears it, or operators do: rollcall red clear {red.key}"
        reason = short(f"red of {red.origin}: {short(red.reason, 1000)}; {ends}")
        return Shut("red", How.HALT, reason, (red.origin,))
    return None


def blocked_release(at: Situation) -> Shut | None:
    """Rolled back too often, wherever that was. Where no node is left to move there is nothing to stop."""
    if at.rollout.kind is RolloutKind.UNDO or all(node.state in FINAL for node in at.nodes):
        return None
    words = blocked_words(at.rollout.release, at.fleet)
    if not words:
        return None
    lift = f"rollcall release unblock {at.rollout.release[:12]}"
    return Shut("blocked", How.HALT, f"the release is blocked: {words}; to lift it: {lift}")


def failures(at: Situation) -> Shut | None:
    """The worst wave counts. Percent of whole nodes: in a wave of one, the one that fails is all of it."""
    settings, worst = at.fleet.settings, None
    for wave in sorted({node.wave for node in at.nodes}):
        mine = [
            node for node in at.nodes if node.wave == wave and node.state is not NodeState.SKIPPED
        ]
        bad = [node for node in mine if node.state in BAD and not node.withdrawn]
        if not bad:
            continue
        rate = 100 * len(bad) / len(mine)
        how = _how(rate, settings.failure_pause, settings.failure_halt)
        if how is not None and (worst is None or how > worst.how):
            first = "; ".join(f"{node.name} {node.state}: {node.reason}" for node in bad[:3])
            share = f"{len(bad)} of {len(mine)} in wave {wave + 1} failed ({rate:.0f} %): {first}"
            worst = Shut("failures", how, short(share), tuple(node.name for node in bad))
    return worst


def _how(rate: float, pause: float, halt: float) -> How | None:
    if rate > halt:
        return How.HALT
    return How.PAUSE if rate > pause else None


def expired_release(at: Situation) -> Shut | None:
    expires = at.rollout.expires
    if expires is None or at.now < expires:
        return None
    return Shut("expired", How.PAUSE, "the release has expired: no node begins it any more")


def unreached_node(at: Situation) -> Shut | None:
    """Where peers do not reach a node there would be no attestation of it."""
    found = at.fleet.unreached(at.now)
    if not found:
        return None
    return Shut("unreached", How.WAIT, short(f"held: {'; '.join(found.values())}"), tuple(found))


def silent_node(at: Situation) -> Shut | None:
    silent = at.fleet.silent(at.now)
    if not silent:
        return None
    reason = short(f"waits to hear of {listed(silent)}")
    return Shut("silent", How.WAIT, reason, tuple(silent), keeps_flags=True)


def frozen_fleet(at: Situation) -> Shut | None:
    why = at.fleet.settings.frozen
    if not why:
        return None
    return Shut(
        "frozen", How.WAIT, f'the fleet is frozen: {why}; to go on: rollcall config set frozen ""'
    )


def frozen_ratios(at: Situation) -> Shut | None:
    """What is upgraded now would stay without traffic: its share cannot widen."""
    why = at.fleet.ratios_frozen
    return Shut("traffic", How.WAIT, why) if why else None


def stranded_work(at: Situation) -> Shut | None:
    """Seed 004's `fail` admission: work that only a build has which nobody serves. It may be a worker that restarts."""
    if at.fleet.settings.validation != "fail" or not at.fleet.stranded:
        return None
    return Shut("cohorts", How.DOUBT, short("; ".join(at.fleet.stranded)), keeps_flags=True)


def closed_window(at: Situation) -> Shut | None:
    reason = window_shut(at.fleet.settings, at.now)
    return Shut("window", How.WAIT, reason) if reason else None


def unknown_node(at: Situation) -> Shut | None:
    """A node that has moved and does not know how it is: unknown is never green. One that has only just ended may
    still be looking: nobody has proven a gateway that went back."""
    moved = [node for node in at.nodes if node.flagged is not None and _is_unknown(node, at.fleet)]
    done = [node.name for node in moved if node.state is NodeState.DONE]
    if done:
        reason = f"unknown since it moved: {_each_why(done, at.fleet)}"
        return Shut("unknown", How.DOUBT, short(reason), tuple(done), keeps_flags=True)
    settling = [
        node.name for node in moved if node.state is NodeState.MOVING and _ended(node, at.fleet)
    ]
    if not settling:
        return None
    reason = f"not known yet how it is since it moved: {_each_why(settling, at.fleet)}"
    return Shut("settling", How.DOUBT, short(reason), tuple(settling), True, SETTLING_S)


def _is_unknown(node: RolloutNode, fleet: Fleet) -> bool:
    view = fleet.nodes.get(node.name)
    return view is not None and view.status is Verdict.UNKNOWN


def _ended(node: RolloutNode, fleet: Fleet) -> bool:
    upgrade = fleet.nodes[node.name].upgrade
    return upgrade is not None and upgrade.outcome is not None


def _each_why(names: Sequence[str], fleet: Fleet) -> str:
    """The first of them with what each says of itself."""
    if len(names) > SHOWN:
        return listed(names)
    reasons = {name: fleet.nodes[name].reason for name in names}
    return "; ".join(f"{name} ({why})" if why else name for name, why in reasons.items())


def low_health(at: Situation) -> Shut | None:
    """Of the nodes that have something to serve, that are heard of, and that are not out for this rollout. Not before
    the first has its flag: to move a sick node may be what makes it well."""
    if all(node.flagged is None for node in at.nodes):
        return None
    busy = {node.name for node in at.nodes if is_out(node) or node.state is NodeState.MOVING}
    seen = [
        view
        for name, view in at.fleet.nodes.items()
        if name not in busy and view.release is not None and not at.fleet.is_silent(view, at.now)
    ]
    sick = [view.name for view in seen if view.status is not Verdict.GREEN]
    floor = at.fleet.settings.health_floor
    if not sick or 100 * (len(seen) - len(sick)) >= floor * len(seen):
        return None
    healthy = f"{len(seen) - len(sick)} of {len(seen)} nodes are healthy, {floor:g} % are wanted"
    reason = f"{healthy}: not {_each_why(sick, at.fleet)}"
    return Shut("health", How.DOUBT, short(reason), tuple(sick), keeps_flags=True)


def widening_node(at: Situation) -> Shut | None:
    """The next node waits until the one before is back in rotation (seed 004)."""
    widening = at.fleet.widening
    if not widening:
        return None
    words = "; ".join(f"{name}: {said}" for name, said in sorted(widening.items()))
    names = tuple(sorted(widening))
    return Shut("widening", How.WAIT, short(f"traffic widens: {words}"), names, keeps_flags=True)


GATES: tuple[Gate, ...] = (
    open_red,
    blocked_release,
    failures,
    expired_release,
    unreached_node,
    silent_node,
    frozen_fleet,
    frozen_ratios,
    closed_window,
    stranded_work,
    unknown_node,
    low_health,
    widening_node,
)


def shut_gates(at: Situation) -> list[Shut]:
    """The gravest first, else in the order of the gates."""
    found = [shut for shut in (gate(at) for gate in GATES) if shut is not None]
    return sorted(found, key=lambda shut: -shut.how if shut.how >= How.PAUSE else 0)
