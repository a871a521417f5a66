"""A node's status and its health score, as functions of its last word and the time (docs/decisions/0024).

The score is a weighted mean over what the node measured of itself. Each part counts in full up to its target
(seed 003 has them), nothing from its worst value on, and evenly in between; what was not measured is left out:

| part | weight | target | worst |
|---|---|---|---|
| uptime of the gateway, 24 h | 30 | 99.9 % | 95 % |
| readiness green, 24 h | 25 | 99 % | 90 % |
| tasks that failed, 15 min | 20 | 1 % | 10 % |
| wait for a task's start, 95th percentile, 15 min | 15 | 2000 ms | 8000 ms |
| crashes, 24 h | 10 | 0 | 5 |

What is so now counts more than the day: a node whose readiness is unknown has at most 70, one that is red at most
40, and one that is not heard of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.messages import Verdict
from shared.nodes import NodeHealth, NodeStatus
from shared.report import UpgradeReport

HEARD_WITHIN_S: Final = 30.0
"""A node that has not reported for longer is offline."""
DEGRADED_BELOW: Final = 80
MOST_WHEN_UNKNOWN: Final = 70
MOST_WHEN_RED: Final = 40


@dataclass(frozen=True)
class Part:
    """`field` of NodeHealth: full marks at `target` and beyond, none at `worst`."""

    field: str
    weight: int
    target: float
    worst: float

    def share(self, value: float) -> float:
        return min(1.0, max(0.0, (self.worst - value) / (self.worst - self.target)))


PARTS: Final = (
    Part("uptime", 30, 99.9, 95),
    Part("ready", 25, 99, 90),
    Part("error_rate", 20, 1, 10),
    Part("start_p95_ms", 15, 2000, 8000),
    Part("crashes", 10, 0, 5),
)


@dataclass(frozen=True)
class LastWord:
    """What of a node's last report counts here; `heard` is None before the first."""

    heard: float | None
    release: str | None = None
    readiness: Verdict = Verdict.UNKNOWN
    upgrade: UpgradeReport | None = None
    health: NodeHealth | None = None

    def silent(self, now: float) -> bool:
        return self.heard is None or now - self.heard > HEARD_WITHIN_S


def health_score(word: LastWord, now: float) -> int | None:
    """0 to 100. None for a node that was never heard of, and for one that is well and measures nothing."""
    if word.heard is None:
        return None
    if word.silent(now):
        return 0
    measured = None if word.health is None else _measured(word.health)
    if word.readiness is Verdict.GREEN:
        return measured
    most = MOST_WHEN_RED if word.readiness is Verdict.RED else MOST_WHEN_UNKNOWN
    return most if measured is None else min(most, measured)


def _measured(health: NodeHealth) -> int | None:
    """None before the node has looked at itself once."""
    if health.window_s <= 0:
        return None
    known = [(part, value) for part in PARTS if (value := getattr(health, part.field)) is not None]
    total = sum(part.weight for part, _ in known)
    return round(100 * sum(part.weight * part.share(value) for part, value in known) / total)


def node_status(word: LastWord, score: int | None, now: float) -> NodeStatus:
    """The first that holds:

    - `provisioning`: never heard of, or it has no release yet
    - `offline`: not heard of for 30 s
    - `upgrading`: its last upgrade has not ended
    - `error`: its readiness is red, or its last rollback failed (`stuck`)
    - `degraded`: its readiness is unknown, or its health score is below 80
    - `online`
    """
    if word.heard is None:
        return NodeStatus.PROVISIONING
    if word.silent(now):
        return NodeStatus.OFFLINE
    if word.release is None:
        return NodeStatus.PROVISIONING
    if word.upgrade is not None and word.upgrade.outcome is None:
        return NodeStatus.UPGRADING
    stuck = word.upgrade is not None and word.upgrade.outcome == "stuck"
    if word.readiness is Verdict.RED or stuck:
        return NodeStatus.ERROR
    low = score is not None and score < DEGRADED_BELOW
    return NodeStatus.DEGRADED if word.readiness is Verdict.UNKNOWN or low else NodeStatus.ONLINE
