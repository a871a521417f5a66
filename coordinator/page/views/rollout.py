"""One rollout: what holds it up, its waves, who looked at whom, and what each verb would do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.api.attestations import Look
from coordinator.page import words
from coordinator.page.deeds import Offer
from coordinator.saying import span
from shared.fleetsettings import Strategy
from shared.messages import Verdict
from shared.rollout import (
    BAD,
    FINAL,
    LIVE,
    NodeState,
    NodeView,
    Rollout,
    RolloutNode,
    RolloutState,
)
from shared.traffic import NodeTraffic

PHASES = (
    "claimed",
    "frozen",
    "staged",
    "verified",
    "drained",
    "snapshotted",
    "switched",
    "migrated",
    "restarted",
    "proven",
    "attested",
    "good",
    "soaking",
)
"""In the order that a node goes through them."""
MATRIX_MOST = 40
HOLDING_MOST = 6


@dataclass(frozen=True)
class NodeLine:
    node: RolloutNode
    phase: str
    share: str
    waits_for: tuple[str, ...]
    eta: float | None


@dataclass(frozen=True)
class Wave:
    number: int
    kind: str
    state: str
    tone: str
    soak_s: float
    promoted: bool
    done: int
    lines: tuple[NodeLine, ...]


@dataclass(frozen=True)
class Cell:
    """`verdict` is empty where nobody has said anything, and `-` on a node's own place."""

    verdict: str
    says: str
    issued: float | None = None


@dataclass(frozen=True)
class Matrix:
    peers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    left_out: int


@dataclass(frozen=True)
class RolloutPage:
    rollout: Rollout
    done: int
    failed: int
    total: int
    percent: int
    headline: str
    holding: tuple[RolloutNode, ...]
    holding_more: int
    waves: tuple[Wave, ...]
    matrix: Matrix
    offers: tuple[Offer, ...]
    took_s: float


def rollout_page(
    rollout: Rollout,
    looks: Sequence[Look],
    views: Mapping[str, NodeView],
    shares: Mapping[str, NodeTraffic],
    now: float,
) -> RolloutPage:
    done = sum(node.state is NodeState.DONE for node in rollout.nodes)
    failed = sum(node.state in BAD for node in rollout.nodes)
    total = len(rollout.nodes)
    holding = holding_up(rollout)
    return RolloutPage(
        rollout=rollout,
        done=done,
        failed=failed,
        total=total,
        percent=round(100 * done / total) if total else 0,
        headline=_headline(rollout, done, failed, now),
        holding=tuple(holding[:HOLDING_MOST]),
        holding_more=max(0, len(holding) - HOLDING_MOST),
        waves=_waves(rollout, shares),
        matrix=matrix_of(rollout, looks, sorted(views)),
        offers=tuple(offers_of(rollout)),
        took_s=(rollout.ended or now) - rollout.created,
    )


def holding_up(rollout: Rollout) -> list[RolloutNode]:
    """What the rollout waits for: nodes that failed while it stands, else those under way, else those whose turn
    it is. Nothing once it has succeeded or was taken back."""
    if rollout.state in (RolloutState.SUCCEEDED, RolloutState.ABORTED):
        return []
    bad = [node for node in rollout.nodes if node.state in BAD]
    if bad and rollout.state is not RolloutState.RUNNING:
        return bad
    busy = [node for node in rollout.nodes if node.state in (NodeState.MOVING, NodeState.PENDING)]
    if busy:
        return busy
    open_ = [node for node in rollout.nodes if node.state not in FINAL]
    first = min((node.wave for node in open_), default=None)
    return [node for node in open_ if node.wave == first] or bad


def _headline(rollout: Rollout, done: int, failed: int, now: float) -> str:
    parts = [f"{rollout.state}: {done} of {words.counted(len(rollout.nodes), 'node')} done"]
    if failed:
        parts.append(f"{failed} failed")
    if rollout.eta is not None and rollout.state in LIVE:
        parts.append(f"about {span(max(0.0, rollout.eta - now))} left")
    return ", ".join(parts)


def _waves(rollout: Rollout, shares: Mapping[str, NodeTraffic]) -> tuple[Wave, ...]:
    count = max((node.wave for node in rollout.nodes), default=-1) + 1
    return tuple(_wave(rollout, number, shares) for number in range(max(count, len(rollout.waves))))


def _wave(rollout: Rollout, number: int, shares: Mapping[str, NodeTraffic]) -> Wave:
    mine = [node for node in rollout.nodes if node.wave == number]
    known = rollout.waves[number] if number < len(rollout.waves) else None
    state, tone = _wave_state(mine)
    return Wave(
        number=number + 1,
        kind=str(known.kind) if known is not None else "",
        state=state,
        tone=tone,
        soak_s=rollout.wave_soak(number),
        promoted=rollout.is_promoted(number),
        done=sum(node.state is NodeState.DONE for node in mine),
        lines=tuple(_line(node, rollout, shares.get(node.name)) for node in mine),
    )


def _wave_state(nodes: Sequence[RolloutNode]) -> tuple[str, str]:
    states = {node.state for node in nodes}
    if states & BAD:
        return "failed", "bad"
    if states and states <= FINAL:
        return "done", "good"
    if states & {NodeState.MOVING, NodeState.PENDING, NodeState.DONE}:
        return "moving", "busy"
    return "waiting", "calm"


def _line(node: RolloutNode, rollout: Rollout, share: NodeTraffic | None) -> NodeLine:
    phase = node.phase
    if phase in PHASES and node.state is NodeState.MOVING:
        phase = f"{phase}, {PHASES.index(phase) + 1} of {len(PHASES)}"
    eta = node.eta if node.state is NodeState.MOVING and rollout.state in LIVE else None
    others = tuple(name for name in node.waits_for if name != node.name)
    return NodeLine(node, phase, _share(share), others, eta)


def _share(share: NodeTraffic | None) -> str:
    """`25 of 50 %`: what it takes, of what is wanted."""
    if share is None or (share.actual is None and share.desired is None):
        return words.NONE
    actual = "?" if share.actual is None else str(share.actual)
    if share.desired is None or share.desired == share.actual:
        return f"{actual} %"
    return f"{actual} of {share.desired} %"


def matrix_of(rollout: Rollout, looks: Sequence[Look], everyone: Sequence[str]) -> Matrix:
    """A row for each node of the rollout, a column for each peer that could look. A word on an earlier attempt is
    none on this one."""
    orders = {node.order for node in rollout.nodes}
    said = {(look.subject, look.by): look for look in looks if look.order in orders}
    moved = [node.name for node in rollout.nodes if node.state is not NodeState.WAITING]
    peers = tuple(sorted({*everyone, *(by for _, by in said)}))[:MATRIX_MOST]
    rows = tuple(
        (name, tuple(_cell(name, by, said.get((name, by))) for by in peers))
        for name in moved[:MATRIX_MOST]
    )
    return Matrix(peers, rows, max(0, len(moved) - MATRIX_MOST))


def _cell(subject: str, by: str, look: Look | None) -> Cell:
    if subject == by:
        return Cell("-", "itself")
    if look is None:
        return Cell("", f"{by} has not said anything of {subject}")
    seen = f" it saw {words.hash_of(look.ready_probe_sha256)}" if look.ready_probe_sha256 else ""
    reason = f": {look.reason}" if look.reason and look.verdict is not Verdict.GREEN else ""
    return Cell(
        str(look.verdict), f"{by} signed {look.verdict} of {subject},{seen}{reason}", look.issued
    )


VERBS: Mapping[str, tuple[str, bool]] = {
    "pause": ("Pause", False),
    "resume": ("Resume", False),
    "promote": ("Promote", False),
    "retry": ("Retry", False),
    "skip": ("Skip nodes", False),
    "abort": ("Abort", True),
}
"""Their words, and whether they are to be thought over twice."""
_MAY: Mapping[str, frozenset[RolloutState]] = {
    "pause": frozenset({RolloutState.RUNNING}),
    "resume": frozenset({RolloutState.PAUSED, RolloutState.HALTED}),
    "promote": frozenset({RolloutState.RUNNING, RolloutState.PAUSED}),
    "retry": frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED}),
    "skip": frozenset(
        {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED, RolloutState.ABORTING}
    ),
    "abort": frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED}),
}


def offers_of(rollout: Rollout) -> list[Offer]:
    """What can be done to it now; the coordinator says no to what cannot, whoever asks."""
    offers = []
    for verb, (label, danger) in VERBS.items():
        action = f"POST /v1/rollouts/{{id}}/{verb}"
        if rollout.state in _MAY[verb] and _is_of_use(rollout, verb):
            offers.append(Offer(f"/rollouts/{rollout.id}/{verb}", label, action, danger))
    if rollout.state not in LIVE and any(node.state is NodeState.DONE for node in rollout.nodes):
        offers.append(Offer(f"/rollouts/new?undo={rollout.id}", "Undo …", "POST /v1/plans", True))
    return offers


def _is_of_use(rollout: Rollout, verb: str) -> bool:
    if verb == "retry":
        return any(node.state in BAD for node in rollout.nodes)
    if verb == "promote":
        return any(node.phase == "soaking" for node in rollout.nodes)
    if verb == "abort" and rollout.state is RolloutState.HALTED:
        return any(node.state is NodeState.MOVING for node in rollout.nodes)
    return True


def skippable(rollout: Rollout) -> list[str]:
    kept = (NodeState.DONE, NodeState.SKIPPED)
    moving = () if rollout.state is RolloutState.ABORTING else (NodeState.MOVING,)
    return [node.name for node in rollout.nodes if node.state not in (*kept, *moving)]


def retriable(rollout: Rollout) -> list[str]:
    return [node.name for node in rollout.nodes if node.state in BAD]


def what_verb_does(rollout: Rollout, verb: str, now: float) -> list[str]:
    """In sentences, with the nodes that it concerns."""
    at = {state: [n.name for n in rollout.nodes if n.state is state] for state in NodeState}
    moving, pending = at[NodeState.MOVING], at[NodeState.PENDING]
    waiting = [*at[NodeState.WAITING], *pending]
    name = f"rollout {rollout.id} to {rollout.label}"
    says = {
        "pause": [
            f"Nothing new begins in {name} until somebody resumes it.",
            _about(waiting, "would wait", "wait", "no node is left to begin"),
            _about(moving, "is on its way and goes on to its end", "are on their way and go on"),
        ],
        "resume": [
            f"{name} goes on where it stands.".capitalize(),
            _about(waiting, "begins when its gates are open", "begin in turn", "none is waiting"),
            "It is refused where it would stop again at once.",
        ],
        "promote": [
            f"The soak of the wave that is watched ends now ({span(rollout.soak_s)} was planned).",
            _about(
                [n.name for n in rollout.nodes if n.phase == "soaking"], "is of it", "are of it"
            ),
            "The next wave does not wait for it. Agents go on watching, and a red still rolls back.",
        ],
        "retry": [
            _about(retriable(rollout), "gets a new order", "get new orders", "no node has failed"),
            "It is refused where the release stands on a node's blocklist.",
        ],
        "skip": [
            f"{name} goes on without the nodes that are chosen; they stay on what they run.".capitalize(),
            "A node that moves cannot be skipped; abort the rollout to stop it.",
        ],
        "abort": [
            f"{name} ends. It cannot be resumed.".capitalize(),
            _about(moving, "is taken back: it drops its order or rolls back", "are taken back"),
            _about(pending, "does not begin", "do not begin"),
            _about(at[NodeState.DONE], "stays on the new release", "stay on the new release"),
            "To take back what is done, undo the rollout once it has ended.",
        ],
    }
    return [line for line in says[verb] if line]


def _about(names: Sequence[str], one: str, many: str, none: str = "") -> str:
    """`canary is on its way.`"""
    if not names:
        return f"{none.capitalize()}." if none else ""
    return f"{words.listed(list(names))} {one if len(names) == 1 else many}."


@dataclass(frozen=True)
class PastRollout:
    rollout: Rollout
    success: str
    failed: str
    took_s: float


def past(rollout: Rollout, now: float) -> PastRollout:
    total = len(rollout.nodes) or 1
    done = sum(node.state is NodeState.DONE for node in rollout.nodes)
    bad = sum(node.state in BAD for node in rollout.nodes)
    return PastRollout(
        rollout,
        f"{100 * done / total:.0f} %",
        f"{100 * bad / total:.0f} %",
        (rollout.ended or now) - rollout.created,
    )


STRATEGIES: Mapping[Strategy, str] = {
    Strategy.CANARY: "canary first and watched, then all others in batches",
    Strategy.ROLLING: "in batches, one after the other",
    Strategy.IMMEDIATE: "everything in one wave; not recommended",
}
