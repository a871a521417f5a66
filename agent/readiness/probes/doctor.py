"""Doctor. It costs seconds of CPU: read on events and hourly, never in a loop."""

from __future__ import annotations

from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.doctor import run_doctor
from agent.readiness.reading import Reading, unknown


class DoctorProbe:
    id = "doctor"

    def __init__(
        self, openclaw: Callable[[], OpenClaw | None], period_s: float, timeout_s: float
    ) -> None:
        self._openclaw = openclaw
        self._deadline_s = timeout_s
        self.period_s = period_s
        self.timeout_s = timeout_s + 10
        self.stale_after_s = 2 * period_s + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        doctor = await run_doctor(openclaw, timeout_s=self._deadline_s)
        items = [item.model_dump(mode="json") for item in doctor.items]
        return Reading(doctor.status, doctor.reason, facts={"doctor": items}, raw=doctor.raw)
