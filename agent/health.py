"""When a new agent may call itself healthy, and what it does when it cannot (DESIGN.md, 4)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from agent.environments import Environments
from shared.clock import Clock
from shared.errors import RollcallError
from shared.readiness import CheckStatus, ReadinessDocument
from shared.wire import short

log = structlog.get_logger()

LOOK_EVERY_S = 0.25
ALONE_S = 60.0
"""Without any network for so long, an agent that works otherwise counts as healthy."""
GATEWAY = "gateway"


class NotHealthyError(RollcallError):
    """The deadline is over. The agent ends; the launcher counts, and goes back after three."""

    code = "not-healthy"


@dataclass(frozen=True)
class Senses:
    """What the report rests on: the readiness document, whether coordinator or a peer was reached, and
    why the coordinator refuses to speak with this version, empty when it does not."""

    document: Callable[[], ReadinessDocument]
    reached: Callable[[], bool]
    refused: Callable[[], str]


def is_serving(document: ReadinessDocument) -> bool:
    """Whether the gateway answered that it is ready when it was last asked."""
    return any(
        check.id == GATEWAY and check.status in (CheckStatus.PASS, CheckStatus.WARN)
        for check in document.checks
    )


def find_missing(senses: Senses, *, served: bool, ran_s: float) -> str:
    """What still keeps a version from being healthy; empty when nothing does. Home, store and doors are
    had before anybody asks."""
    document = senses.document()
    if not any(check.id == GATEWAY and check.at is not None for check in document.checks):
        return "readiness has not been read"
    if served and not is_serving(document):
        return "the gateway served before, and does not now"
    if refused := senses.refused():
        return f"the coordinator refuses it: {refused}"
    if not senses.reached() and ran_s < ALONE_S:
        return "neither the coordinator nor a peer was reached"
    return ""


class Health:
    """`version` is None for an agent that no launcher started: nobody waits for its report."""

    def __init__(
        self,
        version: str | None,
        environments: Environments,
        senses: Senses,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._version, self._environments = version, environments
        self._senses, self._clock, self._timeout_s = senses, clock, timeout_s
        self._began = clock.monotonic()
        self.settled = version is None

    async def run(self) -> None:
        """Report once. Raises NotHealthyError at the deadline; a version that has reported before has
        none, and goes on."""
        if self._version is None:
            return
        if not await asyncio.to_thread(self._environments.is_healthy, self._version):
            await self._until_healthy(self._version)
        signal.alarm(0)
        self.settled = True
        await asyncio.to_thread(self._conclude, self._version)

    async def _until_healthy(self, version: str) -> None:
        move = await asyncio.to_thread(self._environments.move)
        served = move is not None and move.version == version and move.served
        while True:
            ran_s = self._clock.monotonic() - self._began
            missing = find_missing(self._senses, served=served, ran_s=ran_s)
            if not missing:
                break
            if ran_s >= self._timeout_s:
                reason = short(f"not healthy within {self._timeout_s:.0f} s: {missing}")
                await asyncio.to_thread(self._environments.leave_reason, version, reason)
                raise NotHealthyError(f"agent {version} is {reason}")
            await self._clock.sleep(LOOK_EVERY_S)
        await asyncio.to_thread(self._environments.report_healthy, version, self._clock.now())
        log.info("agent is healthy", version=version, after_s=round(ran_s, 1))

    def _conclude(self, version: str) -> None:
        """The move is over; what is neither active nor to go back to is removed."""
        move = self._environments.move()
        if move is not None and move.version == version:
            self._environments.end_move()
        if self._environments.active == version and (gone := self._environments.prune()):
            log.info("old agents removed", versions=gone)
