"""Doctor, of each tenant. It costs seconds of CPU: read on events and hourly, never in a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.openclaw.cli import OpenClaw
from agent.openclaw.doctor import run_doctors
from agent.readiness.reading import Reading, unknown


class DoctorProbe:
    id = "doctor"

    def __init__(
        self,
        openclaw: Callable[[], OpenClaw | None],
        period_s: float,
        timeout_s: float,
        tenants: Sequence[str] = (),
    ) -> None:
        """`timeout_s` is for each Doctor; `tenants` are those besides the gateway's own."""
        self._openclaw, self._tenants = openclaw, tenants
        self._deadline_s = timeout_s
        self.period_s = period_s
        self.timeout_s = (1 + len(tenants)) * (timeout_s + 10)
        self.stale_after_s = 2 * period_s + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        doctor = await run_doctors(openclaw, self._tenants, timeout_s=self._deadline_s)
        items = [item.model_dump(mode="json") for item in doctor.items]
        return Reading(doctor.status, doctor.reason, facts={"doctor": items}, raw=doctor.raw)
