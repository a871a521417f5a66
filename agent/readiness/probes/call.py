"""What the probes have in common that ask the running gateway through its own CLI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.reading import Reading, unknown


class CallProbe(ABC):
    """A call costs about a second of CPU: such a probe has a long period."""

    timeout_s = 60.0

    def __init__(
        self, gateway: Gateway, openclaw: Callable[[], OpenClaw | None], period_s: float
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        return await self.ask(openclaw)

    @abstractmethod
    async def ask(self, openclaw: OpenClaw) -> Reading:
        """Raises CommandError when the gateway does not answer; the monitor makes it unknown."""
