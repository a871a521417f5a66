"""Thresholds with memory: once over the limit, only a clear return under it counts as better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.readiness.history import History
from shared.readiness import Check, CheckStatus

RETURN_FRACTION = 0.95


class Guard(Protocol):
    """Judges what earlier readings add up to; asked each time that a document is built, so it must be cheap.
    With too little to judge from it says so: `warn`, `inconclusive`."""

    def judge(self, history: History, now: float) -> Check: ...


@dataclass(frozen=True)
class Ceiling:
    """Fails above `limit`; after a failure passes again only below 95 % of it (hysteresis)."""

    limit: float

    def judge(self, value: float, before: CheckStatus | None) -> CheckStatus:
        line = self.limit * RETURN_FRACTION if before is CheckStatus.FAIL else self.limit
        return CheckStatus.FAIL if value > line else CheckStatus.PASS


class Threshold:
    """A ceiling that remembers what it said last: one for each thing that is measured."""

    def __init__(self, limit: float) -> None:
        self._ceiling = Ceiling(limit)
        self._before: CheckStatus | None = None

    @property
    def limit(self) -> float:
        return self._ceiling.limit

    def judge(self, value: float) -> CheckStatus:
        self._before = self._ceiling.judge(value, self._before)
        return self._before

    def forget(self) -> None:
        """What comes next has nothing to do with what was."""
        self._before = None
