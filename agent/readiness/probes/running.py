"""The version that serves, asked once per process: a process does not change its code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.reading import Reading, unknown
from agent.service.base import Pid
from shared.readiness import CheckStatus


class RunningProbe:
    id = "running"
    timeout_s = 60.0

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        alive: Callable[[], Awaitable[Pid | None]],
        period_s: float,
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self._alive = alive
        self._known: tuple[Pid, str] | None = None
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        pid, openclaw = await self._alive(), self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        if pid is None:
            return Reading(CheckStatus.FAIL, "the gateway is not running")
        if self._known is None or self._known[0] != pid:
            version = await self._gateway.running_version(openclaw)
            if version is None:
                return unknown("the gateway does not say which version it is")
            self._known = (pid, version)
        version = self._known[1]
        return Reading(
            CheckStatus.PASS,
            observed=version,
            facts={"core_running": version},
            raw=version.encode(),
        )
