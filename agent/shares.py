"""What a node does about the share of traffic that is wanted of it: a function of what it knows (P2, P3)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.messages import Verdict
from shared.traffic import FULL, Step, TrafficWord


@dataclass(frozen=True)
class Facts:
    """`word` is None while the coordinator is away. `upgrade` is the phase of an upgrade that has the weight, empty
    when none does; `in_hand` says that an order has it, which takes the gateway out. `freezes` and
    `reds` say in words what keeps the node as it is. `attested` is the step for which this agent has collected its
    peers' attestations."""

    word: TrafficWord | None
    weight: int
    release: str | None
    status: Verdict
    status_reason: str = ""
    upgrade: str = ""
    in_hand: bool = False
    freezes: tuple[str, ...] = ()
    reds: tuple[str, ...] = ()
    attested: str | None = None


@dataclass(frozen=True)
class Lower:
    """At once: it needs nobody's word."""

    step: Step


@dataclass(frozen=True)
class Raise:
    """Once the whole quorum has looked. Where the share is what is wanted already, they only look."""

    step: Step


@dataclass(frozen=True)
class Stay:
    """`reason` is empty when the share is what is wanted, or nothing is."""

    reason: str = ""


def decide_share(facts: Facts) -> Lower | Raise | Stay:
    step = None if facts.word is None else facts.word.step
    if facts.word is None or step is None:
        return Stay()
    looks = step.percent == facts.weight and step.widens and facts.attested != step.id
    if step.percent == facts.weight and not looks:
        return Stay()
    if reason := _held(facts, facts.word, step):
        return Stay("" if looks else reason)
    if step.percent < facts.weight:
        return Lower(step)
    if reason := _not_well(facts):
        return Stay("" if looks else reason)
    return Raise(step)


def _held(facts: Facts, word: TrafficWord, step: Step) -> str:
    """What keeps the share as it is, up or down."""
    if facts.upgrade:
        return f"an upgrade has the weight: {facts.upgrade}"
    if facts.in_hand:
        return "an order has the weight until the gateway is back"
    if word.frozen:
        return word.frozen
    if facts.freezes:
        return "; ".join(facts.freezes)
    if step.release is not None and step.release != facts.release:
        return "it is for another release than this node runs"
    return ""


def _not_well(facts: Facts) -> str:
    if facts.reds:
        return f"this node is red: {', '.join(facts.reds)}"
    if facts.release is None:
        return "no release of this fleet runs here that peers could look at"
    if facts.status is not Verdict.GREEN:
        return f"this node is {facts.status}: {facts.status_reason}"
    return ""


def wanted_of(word: TrafficWord | None, release: str | None) -> int | None:
    """The share that is wanted of a node that runs `release`; None when none is."""
    step = None if word is None else word.step
    if step is None or (step.release is not None and step.release != release):
        return None
    return min(step.percent, FULL)


def share_again(before: int, facts: Facts) -> int:
    """What a node takes whose gateway is another process of the same release, given what it took before.

    Its full share, which its peers had seen it through, it takes at once: readiness keeps requests away until the
    gateway serves. Less than that is on its way up, or an operator's word: it comes back as a raise does, once peers
    have looked at the new process. Where nobody wants a share of it nobody would raise it, so it is as it was.
    """
    wanted = wanted_of(facts.word, facts.release)
    if before == FULL:
        return FULL if wanted is None else wanted
    return before if facts.word is not None and wanted is None else 0
