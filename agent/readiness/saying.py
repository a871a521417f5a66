"""The readiness document's checks as they go with a report: for people, and no reason to tell anybody anything."""

from __future__ import annotations

from shared.clock import Clock
from shared.readiness import Check, ReadinessDocument
from shared.report import MAX_CHECKS, SaidCheck
from shared.wire import short

KEPT_S = 60.0
"""A report that is the same as the last one costs the coordinator next to nothing, so numbers move once a minute."""


class SaidChecks:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made_at: float | None = None
        self._made: list[SaidCheck] = []

    def of(self, document: ReadinessDocument) -> list[SaidCheck]:
        """As a minute ago at most; at once where another check is there, or one has another status."""
        now = self._clock.monotonic()
        same = [(check.id, check.status) for check in document.checks[:MAX_CHECKS]] == [
            (check.id, check.status) for check in self._made
        ]
        if self._made_at is None or not same or now - self._made_at >= KEPT_S:
            self._made = [_said(check) for check in document.checks[:MAX_CHECKS]]
            self._made_at = now
        return self._made


def _said(check: Check) -> SaidCheck:
    return SaidCheck(
        id=short(check.id, 64),
        status=check.status,
        observed=_cut(check.observed),
        limit=_cut(check.limit),
        unit=None if check.unit is None else short(check.unit, 16),
        at=check.at,
        reason=short(check.reason, 160),
    )


def _cut(value: float | str | None) -> float | str | None:
    return short(value, 80) if isinstance(value, str) else value
