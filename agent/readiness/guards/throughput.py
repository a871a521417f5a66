"""Throughput against the same hour of earlier days, while at least as much is asked for."""

from __future__ import annotations

from statistics import fmean, median

from agent.readiness.guards.base import RETURN_FRACTION
from agent.readiness.history import History, Sample
from shared.readiness import Check, CheckStatus

DONE, ASKED = "tasks_per_minute", "tasks_asked_per_minute"
DAY_S, HALF_HOUR_S = 86400.0, 1800.0
DAYS = 7
LOOK_S = 900.0
"""So much of now is compared: a single quiet minute says nothing."""
LEAST_LOOK_S = 300.0
LEAST_TASKS = 30.0
"""With fewer to be expected in that time, chance decides."""


class ThroughputGuard:
    """`observed` is the mean of the last 15 minutes, `limit` the fraction of what that hour had. It has nothing
    to say, and passes, without an earlier day, under less demand than then, and where few tasks were done then."""

    id = "throughput-hour"

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self._judged: tuple[Sample | None, Sample | None] | None = None
        self._check: Check | None = None

    def judge(self, history: History, now: float) -> Check:
        key = (history.newest(DONE), history.newest(ASKED))
        if self._check is None or self._judged != key:
            self._check, self._judged = self._look(history), key
        return self._check

    def _look(self, history: History) -> Check:
        newest = history.newest(DONE)
        if self._fraction == 0:
            return self._passed("switched off")
        if newest is None:
            return self._passed("no tasks were counted yet")
        then, asked_then = (hour_of_days(history, name, newest.at) for name in (DONE, ASKED))
        if then is None or asked_then is None:
            return self._passed("no earlier day to compare this hour with")
        if then * LOOK_S / 60 < LEAST_TASKS:
            return self._passed(f"this hour of earlier days had {then:.1f} tasks a minute: too few")
        done, asked = (recent(history, name, newest.at) for name in (DONE, ASKED))
        if done is None or asked is None:
            reason = f"has not seen {LEAST_LOOK_S:.0f} s of tasks yet"
            return Check(id=self.id, status=CheckStatus.WARN, reason=reason, inconclusive=True)
        return self._compare(newest.at, then, asked_then, done, asked)

    def _compare(
        self, at: float, then: float, asked_then: float, done: float, asked: float
    ) -> Check:
        limit = then * self._fraction
        failed = self._check is not None and self._check.status is CheckStatus.FAIL
        line = limit / RETURN_FRACTION if failed else limit
        status, reason = CheckStatus.PASS, ""
        if asked < asked_then:
            reason = f"{asked:.0f} tasks a minute are asked for; it were {asked_then:.0f} then"
        elif done < line:
            status = CheckStatus.FAIL
            reason = (
                f"{done:.0f} tasks a minute are done; this hour of earlier days had {then:.0f},"
                f" and {asked:.0f} are asked for"
            )
        return Check(
            id=self.id,
            status=status,
            observed=round(done, 2),
            unit="tasks/min",
            limit=round(limit, 2),
            at=at,
            reason=reason,
        )

    def _passed(self, reason: str) -> Check:
        return Check(id=self.id, status=CheckStatus.PASS, reason=reason)


def hour_of_days(history: History, name: str, now: float) -> float | None:
    """The median over the days of the week that have it: the mean from half an hour before to half an hour
    after this time of day."""
    buckets = history.coarse(name, now - DAYS * DAY_S - HALF_HOUR_S)
    means = []
    for day in range(1, DAYS + 1):
        middle = now - day * DAY_S
        found = [each.mean for each in buckets if abs(each.at - middle) <= HALF_HOUR_S]
        if found:
            means.append(fmean(found))
    return median(means) if means else None


def recent(history: History, name: str, now: float) -> float | None:
    samples = history.since(name, now - LOOK_S)
    if not samples or samples[-1].at - samples[0].at < LEAST_LOOK_S:
        return None
    return fmean(each.value for each in samples)
