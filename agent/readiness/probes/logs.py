"""Errors in the gateway's logs that the release before did not have."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.readiness.logs.forms import LogReport
from agent.readiness.logs.gateway import GatewayLogs
from agent.readiness.reading import Reading, unknown
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.readiness import CheckStatus


class LogProbe:
    """Series `new_errors`: lines of new forms since the release was switched to."""

    id = "logs"
    timeout_s = 15.0

    def __init__(
        self,
        logs: GatewayLogs,
        current: Path,
        clock: Clock,
        *,
        period_s: float,
        limit: int,
        judged_for_s: float,
    ) -> None:
        self._logs, self._current, self._clock = logs, current, clock
        self._limit, self._judged_for_s = limit, judged_for_s
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if not self._current.is_symlink():
            return unknown("no release is installed")
        seen = await asyncio.to_thread(self._logs.read)
        status, reason = self._judge(seen)
        raw = {"release": seen.release, "since": seen.since, "new_errors": seen.new_errors}
        return Reading(
            status,
            reason,
            float(seen.new_errors),
            "lines",
            float(self._limit),
            raw=canonical_json(raw),
            series={"new_errors": float(seen.new_errors)},
        )

    def _judge(self, seen: LogReport) -> tuple[CheckStatus, str]:
        if not seen.files:
            refused = "; ".join(seen.refused) or "OpenClaw has written none yet"
            return CheckStatus.WARN, f"no log of the gateway is read: {refused}"
        if not seen.new_errors or seen.since is None:
            return CheckStatus.PASS, ""
        first = next(form for form in seen.forms if form.new)
        forms = sum(form.new for form in seen.forms)
        reason = (
            f"{seen.new_errors} errors of {forms} forms that the release before did not have, such as"
            f" ({first.count} times): {first.example}"
        )
        if self._clock.now() - seen.since > self._judged_for_s:
            return CheckStatus.PASS, f"{reason}; the upgrade was too long ago to blame it"
        return (CheckStatus.WARN if seen.new_errors < self._limit else CheckStatus.FAIL), reason
