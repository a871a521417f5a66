"""Which versions may live side by side while a rollout goes on (seed 004). Pure.

A train is the year and month of an OpenClaw version: patches and corrections of one month are one train. Two trains
are adjacent when no month lies between them. The extended-stable line (patches from 33 on) is kept alive beside later
trains, so from such a release the step may be up to three months.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.rollout.facts import Fleet
from shared.errors import BadInputError
from shared.protocol import FIRST, ProtocolRange
from shared.release import AgentBuild, Release
from shared.rollout import NodeView
from shared.rolloutplan import Refusal
from shared.versions import OpenClawVersion

EXTENDED_FROM = 33
EXTENDED_REACH = 3
APART = "--stop-the-world moves everything at once, without service meanwhile"


@dataclass(frozen=True)
class Train:
    year: int
    month: int
    extended: bool

    @property
    def number(self) -> int:
        return self.year * 12 + self.month

    def __str__(self) -> str:
        return f"{self.year}.{self.month}"

    def is_adjacent(self, other: Train) -> bool:
        older = min(self, other, key=lambda each: each.number)
        reach = EXTENDED_REACH if older.extended else 1
        return abs(self.number - other.number) <= reach


def train_of(version: str) -> Train | None:
    """None for what is no version of OpenClaw's own form."""
    try:
        raw = OpenClawVersion(version).raw
    except BadInputError:
        return None
    year, month, rest = raw.split(".", 2)
    patch = int(rest.partition("-")[0].partition(".")[0])
    return Train(int(year), int(month), patch >= EXTENDED_FROM)


def core_of(node: NodeView) -> str | None:
    return node.version_running or node.version_on_disk


def check_trains(release: Release, fleet: Fleet) -> list[Refusal]:
    """Every node counts, also one that does not move: it lives beside those that do."""
    target = train_of(release.manifest.openclaw)
    found = []
    for name, node in sorted(fleet.nodes.items()):
        core = core_of(node)
        train = None if core is None else train_of(core)
        if target is not None and train is not None and not target.is_adjacent(train):
            found.append(
                Refusal(
                    gate="train",
                    node=name,
                    reason=f"it runs OpenClaw {core} of train {train}; {release.manifest.openclaw} is of"
                    f" train {target}, which is not adjacent",
                    remedy=f"move to a release of a train between them first, or: {APART}",
                )
            )
    return found


def check_protocols(
    agent: AgentBuild | None, fleet: Fleet, speaks: ProtocolRange, *, apart: bool
) -> list[Refusal]:
    """While a rollout goes on old and new agents live side by side: every two of them, and the coordinator, need a
    protocol in common. `apart` leaves the coordinator, which stays as it is."""
    spoken = {
        f"the agent of {node.name}": node.protocol or FIRST
        for node in fleet.nodes.values()
        if node.agent_version
    }
    sides: dict[str, ProtocolRange] = {"this coordinator": speaks}
    if not apart:
        sides |= spoken
    if agent is not None:
        new = f"agent {agent.version} of the release"
        return _against(new, agent.protocol or FIRST, sides, apart)
    if apart:
        return []
    return _live(sides, apart)


def _against(
    new: str, range_: ProtocolRange, sides: Mapping[str, ProtocolRange], apart: bool
) -> list[Refusal]:
    found = []
    for who, theirs in sides.items():
        if not range_.overlaps(theirs):
            older = new if range_.max < theirs.max else who
            found.append(_refusal(new, range_, who, theirs, older, apart))
    return found


def _live(sides: Mapping[str, ProtocolRange], apart: bool) -> list[Refusal]:
    """Those that are there now, against the widest apart of them: one pair says it all."""
    low = min(sides, key=lambda who: sides[who].max)
    high = max(sides, key=lambda who: sides[who].min)
    if sides[low].overlaps(sides[high]):
        return []
    return [_refusal(low, sides[low], high, sides[high], low, apart)]


def _refusal(
    a: str, range_a: ProtocolRange, b: str, range_b: ProtocolRange, older: str, apart: bool
) -> Refusal:
    other_way = "" if apart else f"; or: {APART}"
    return Refusal(
        gate="protocol",
        reason=f"{a} speaks {range_a} and {b} {range_b}: none in common",
        remedy=f"upgrade {older}{other_way}",
    )
