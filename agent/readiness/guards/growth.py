"""Memory against what the gateway used before the last upgrade."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from agent.readiness.baseline import Baseline
from agent.readiness.guards.base import Ceiling
from agent.readiness.guards.life import MEMORY, warm_samples
from agent.readiness.history import History, Sample
from shared.readiness import Check, CheckStatus

MIB = 1 << 20


class GrowthGuard:
    """`observed` is the median over the last `window_s` of a gateway that has warmed up."""

    id = "memory-growth"

    def __init__(
        self,
        baseline: Callable[[], Baseline | None],
        *,
        times: float,
        warmup_s: float,
        window_s: float,
    ) -> None:
        self._baseline, self._times = baseline, times
        self._warmup_s, self._window_s = warmup_s, window_s
        self._before: CheckStatus | None = None
        self._judged: tuple[Baseline | None, Sample | None] | None = None
        self._check: Check | None = None

    def judge(self, history: History, now: float) -> Check:
        key = (self._baseline(), history.newest(MEMORY))
        if self._check is None or self._judged != key:
            self._check, self._judged = self._look(key[0], history), key
        return self._check

    def _look(self, baseline: Baseline | None, history: History) -> Check:
        if baseline is None or not baseline.memory_bytes:
            self._before = None
            what = "nothing was upgraded here yet" if baseline is None else "it was not read then"
            return Check(
                id=self.id, status=CheckStatus.PASS, reason=f"no memory to compare with: {what}"
            )
        limit = baseline.memory_bytes * self._times
        warm = warm_samples(history, self._warmup_s)
        seen = warm[-1].at - warm[0].at if warm else 0.0
        if seen < self._window_s:
            self._before = None
            return self._check_of(
                CheckStatus.WARN,
                f"has seen {seen:.0f} s of {self._window_s:.0f} s",
                limit=limit,
                inconclusive=True,
            )
        used = median(each.value for each in warm if each.at >= warm[-1].at - self._window_s)
        self._before = Ceiling(limit).judge(used, self._before)
        reason = ""
        if self._before is CheckStatus.FAIL:
            reason = (
                f"the gateway uses {used / MIB:.0f} MiB; before the upgrade it was"
                f" {baseline.memory_bytes / MIB:.0f} MiB, and {self._times:g} times that is the limit"
            )
        return self._check_of(self._before, reason, limit=limit, observed=used, at=warm[-1].at)

    def _check_of(
        self,
        status: CheckStatus,
        reason: str,
        *,
        limit: float,
        observed: float | None = None,
        at: float | None = None,
        inconclusive: bool = False,
    ) -> Check:
        return Check(
            id=self.id,
            status=status,
            observed=observed,
            unit="bytes",
            limit=limit,
            at=at,
            reason=reason,
            inconclusive=inconclusive,
        )
