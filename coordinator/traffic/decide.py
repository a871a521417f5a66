"""The next share of a node as a function: (what is wanted, what is seen, the rules, now) -> what is wanted next, and
a reason for every node that is not at its full share (P2, P3, P9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from coordinator.rollout.facts import SILENT_AFTER_S
from shared.messages import Verdict
from shared.report import AGENT_CHECK, UpgradeReport
from shared.rollout import NodeView
from shared.traffic import FULL, FleetFreeze, Step
from shared.wire import short

AUTO = "rollcall"
"""Who sets the shares that no operator has set."""
WITH_TRAFFIC = "soaking"
"""The phase in which an upgraded node takes traffic again; `done` comes after it."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one node. `id` names this very step. `pinned`: an operator's word, which stands. `upgrade`
    is the order that the steps belong to, and `before` what was wanted when it came. `steady` is since when nothing
    has spoken against the next step (wall time); None while something does."""

    node: str
    id: str
    percent: int
    since: float
    by: str
    reason: str
    pinned: bool = False
    release: str | None = None
    upgrade: str = ""
    before: int = FULL
    steady: float | None = None

    @property
    def rollout(self) -> str:
        return self.upgrade.partition(":")[0]

    @property
    def widens(self) -> bool:
        return not self.pinned and self.percent < FULL

    def step(self) -> Step:
        """As the node is told."""
        return Step(
            id=self.id,
            percent=self.percent,
            since=self.since,
            release=None if self.pinned else self.release,
            widens=self.widens,
            by=self.by,
            reason=self.reason,
        )


@dataclass(frozen=True)
class Pace:
    """The steps of one rollout, and how long each is watched in seconds."""

    steps: Sequence[int]
    step_for: float


@dataclass(frozen=True)
class Rules:
    """What holds for every node. `reds` says each open red in words, `fleet_frozen` why no rollout goes on, and
    `halted` by its id why a rollout does not. `paces` are those of rollouts by their ids; others go by `steps`.
    `beside` names for a node the neighbours on another core for whose sake it is not given all (P7)."""

    steps: Sequence[int]
    step_for: float
    frozen: FleetFreeze | None = None
    reds: Sequence[str] = ()
    fleet_frozen: str = ""
    halted: Mapping[str, str] = field(default_factory=dict)
    paces: Mapping[str, Pace] = field(default_factory=dict)
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def pace(self, wanted: Wanted) -> Pace:
        return self.paces.get(wanted.rollout) or Pace(self.steps, self.step_for)


@dataclass(frozen=True)
class Seen:
    """`unsigned`: who of the quorum has not signed that it saw the node green since this step began, and why."""

    view: NodeView
    unsigned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Next:
    percent: int


@dataclass(frozen=True)
class Waits:
    reason: str
    steady: bool = False
    """Only the time is missing."""
    beside: bool = False
    """Only for its neighbours' sake: they wait for it in turn."""


def asked_by(view: NodeView) -> list[str]:
    """Load balancers that ask the node for its weight."""
    return sorted({each.address for each in view.balancers if each.via == AGENT_CHECK})


def frozen_words(freeze: FleetFreeze) -> str:
    return short(
        f"{freeze.by} froze all ratios: {freeze.reason};"
        " lift it with: rollcall traffic unfreeze --reason ..."
    )


def next_step(wanted: Wanted, seen: Seen, rules: Rules, now: float) -> Next | Waits | None:
    """None for a share that is not to change by itself."""
    if not wanted.widens:
        return None
    if reason := _held(wanted, seen, rules, now):
        return Waits(short(reason))
    pace, since = rules.pace(wanted), now if wanted.steady is None else wanted.steady
    percent = next_percent(wanted, pace)
    if percent == FULL and (others := rules.beside.get(wanted.node)):
        names = ", ".join(others)
        stays = f"stays at {wanted.percent} % until {names} beside it has the same core"
        return Waits(short(stays), steady=True, beside=True)
    left = pace.step_for - (now - since)
    if left > 0:
        watched = f"watched at {wanted.percent} %: {left:.0f} s left of {pace.step_for:.0f} s"
        return Waits(watched, steady=True)
    return Next(percent)


def next_percent(wanted: Wanted, pace: Pace) -> int:
    return next((each for each in pace.steps if each > wanted.percent), FULL)


def _held(wanted: Wanted, seen: Seen, rules: Rules, now: float) -> str:
    """What speaks against the next step, whatever the time; empty when nothing does."""
    view = seen.view
    if rules.frozen is not None:
        return frozen_words(rules.frozen)
    if rules.reds:
        return "; ".join(rules.reds)
    if rules.fleet_frozen:
        return f"the fleet is frozen: {rules.fleet_frozen}"
    if reason := rules.halted.get(wanted.rollout):
        by_hand = f"rollcall traffic set {wanted.node} PERCENT --reason ..."
        return f"its rollout {wanted.rollout} is {reason}; to go on without it: {by_hand}"
    if view.freezes:
        return "; ".join(each.words for each in view.freezes)
    return _not_there(wanted, seen, now)


def _not_there(wanted: Wanted, seen: Seen, now: float) -> str:
    """What the node itself still lacks; empty when it takes this share, and its peers have seen it green."""
    view = seen.view
    if view.heard is None or now - view.heard > SILENT_AFTER_S:
        return "waits to hear of the node"
    if wanted.release is not None and view.release != wanted.release:
        return "the node runs another release than the one that these steps are for"
    if view.status is not Verdict.GREEN:
        return f"the node is {view.status}: {view.reason}"
    if view.weight != wanted.percent:
        why = f": {view.weight_waits}" if view.weight_waits else ""
        return f"the node takes {view.weight} %, not {wanted.percent} % yet{why}"
    if seen.unsigned:
        said = "; ".join(f"{name}: {why}" for name, why in sorted(seen.unsigned.items()))
        return f"not seen green in this step by {said}"
    return ""


def advance(wanted: Wanted, seen: Seen, rules: Rules, now: float, fresh: str) -> Wanted:
    """`fresh` is the id of a new step, should there be one. Whatever speaks against it starts the time anew."""
    match next_step(wanted, seen, rules, now):
        case Next(percent):
            pace = rules.pace(wanted)
            number = _place(percent, pace.steps)
            return replace(
                wanted,
                id=fresh,
                percent=percent,
                since=now,
                by=AUTO,
                reason=f"green for {pace.step_for:.0f} s at {wanted.percent} %; {number}",
                steady=None,
            )
        case Waits(steady=True):
            return wanted if wanted.steady is not None else replace(wanted, steady=now)
        case _:
            return wanted if wanted.steady is None else replace(wanted, steady=None)


def _place(percent: int, steps: Sequence[int]) -> str:
    if percent not in steps:
        return "the full share"
    return f"step {list(steps).index(percent) + 1} of {len(steps)}"


def observe(wanted: Wanted | None, view: NodeView, now: float, fresh: str) -> Wanted | None:
    """What an upgrade or a rollback of the node means for its share. An operator's word stands; its agent has taken
    the first step, or all, when the release was good, and has put the share back with the release it went back to.
    """
    upgrade = view.upgrade
    if upgrade is None or view.weight is None:
        return wanted
    serves = upgrade.phase == WITH_TRAFFIC or upgrade.outcome == "done"
    begins = serves and (wanted is None or wanted.upgrade != upgrade.order)
    went_back = (
        upgrade.outcome == "rolled_back"
        and wanted is not None
        and (wanted.upgrade, wanted.release) == (upgrade.order, upgrade.release)
        and view.release != upgrade.release
    )
    if wanted is not None and wanted.pinned:
        return replace(wanted, upgrade=upgrade.order) if begins else wanted
    if begins:
        return _begin(wanted, upgrade, view.weight, now, fresh)
    if went_back and wanted is not None:
        return replace(
            wanted,
            id=fresh,
            percent=wanted.before,
            since=now,
            by=AUTO,
            reason="went back together with its release",
            release=view.release,
            steady=None,
        )
    return wanted


def _begin(
    wanted: Wanted | None, upgrade: UpgradeReport, weight: int, now: float, fresh: str
) -> Wanted:
    return Wanted(
        node=upgrade.order.partition(":")[2],
        id=fresh,
        percent=weight,
        since=now,
        by=AUTO,
        reason="upgraded; nobody asks for weights" if weight >= FULL else "upgraded",
        release=upgrade.release,
        upgrade=upgrade.order,
        before=FULL if wanted is None else wanted.percent,
    )


def _is_moved(view: NodeView) -> bool:
    """Whether an upgrade has it out of service: it is no node that widens yet."""
    upgrade = view.upgrade
    return upgrade is not None and upgrade.outcome is None and upgrade.phase != WITH_TRAFFIC


def widening(wanted: Wanted | None, seen: Seen, rules: Rules, now: float) -> str | None:
    """Why an upgraded node is not at its full share yet; None when it is, or when an operator said otherwise."""
    view = seen.view
    changed = observe(wanted, view, now, "")
    if changed is not wanted and changed is not None:
        return "its share is not decided yet" if changed.widens else None
    if wanted is None or wanted.pinned:
        return None
    match next_step(wanted, seen, rules, now):
        case Waits(reason, beside=beside):
            return None if beside else reason
        case Next(percent):
            return f"{percent} % is next"
    if view.release != wanted.release or _is_moved(view):
        return None
    if view.weight != wanted.percent:
        why = f": {view.weight_waits}" if view.weight_waits else ""
        return f"it takes {view.weight} %, not all of its traffic yet{why}"
    return None


def describe(wanted: Wanted | None, seen: Seen, rules: Rules, now: float) -> str:
    """What the node waits for, in words for people; empty when it is where it should be for good."""
    view = seen.view
    if view.weight == 0 and view.upgrade is not None and view.upgrade.outcome == "stuck":
        how = f"rollcall traffic set {view.name} {FULL} --reason ..."
        return f"stuck with no traffic; when it is repaired and no red is open: {how}"
    if wanted is None:
        return ""
    if not wanted.pinned:
        stays = next_step(wanted, seen, rules, now)
        beside = stays.reason if isinstance(stays, Waits) and stays.beside else ""
        return widening(wanted, seen, rules, now) or beside
    if view.weight == wanted.percent:
        return f"{wanted.by}'s word, until: rollcall traffic set {wanted.node} --auto"
    if rules.frozen is not None:
        return frozen_words(rules.frozen)
    return short(f"the node takes {view.weight} %: {view.weight_waits or 'not told yet'}")


FreshId = Callable[[str], str]
"""A new step's id, for a node."""
