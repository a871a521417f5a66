"""What the probes have in common that ask the running gateway."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.reading import Reading, unknown

CLI_PERIOD_S = 120.0
"""The shortest period where every call is a whole CLI."""


class CallProbe(ABC):
    """Reads less often where the gateway lets in nobody but its CLI: a call then costs seconds of CPU."""

    timeout_s = 60.0

    def __init__(
        self, gateway: Gateway, openclaw: Callable[[], OpenClaw | None], period_s: float
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self._every_s = period_s
        self.period_s = period_s
        self.stale_after_s = 3 * max(period_s, CLI_PERIOD_S) + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        try:
            return await self.ask(openclaw)
        finally:
            slow = max(self._every_s, CLI_PERIOD_S)
            self.period_s = self._every_s if self._gateway.is_cheap else slow

    @abstractmethod
    async def ask(self, openclaw: OpenClaw) -> Reading:
        """Raises CommandError when the gateway does not answer; the monitor makes it unknown."""
