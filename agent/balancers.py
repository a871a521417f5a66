"""The load balancers that ask this node, what each was told, and when all of them know."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from shared import report
from shared.clock import Clock
from shared.report import Asker
from shared.wire import short

RECENT_S = 60.0
"""Who has not asked for so long is gone."""
MAX_ASKERS = 64
POLL_S = 0.1


class Via(StrEnum):
    """How a load balancer asks."""

    AGENT_CHECK = report.AGENT_CHECK
    READYZ = "readyz"


ANSWERS = {Via.AGENT_CHECK: 1, Via.READYZ: 3}
"""How many answers it takes until a load balancer acts: a health check goes by several failures running
(HAProxy's `fall` is 3), and who looks at `/readyz` only once is no load balancer."""


@dataclass
class _Asker:
    at: float
    told: str
    answers: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    """When its last answers were made, on the monotonic clock."""

    def since(self, begin: float) -> int:
        """Later than `begin`: of the same instant it is not known which came first."""
        return sum(answer > begin for answer in self.answers)


@dataclass(frozen=True)
class Settling:
    """`every_s`: the longest interval at which one load balancer asks. Several of them can come from one address,
    one for each backend; only the time tells that all had their turn. `at_most_s` ends every wait."""

    every_s: float
    at_most_s: float


class Balancers:
    """By source address. Bounded: who asked least recently is forgotten first."""

    def __init__(self, clock: Clock, limits: Settling) -> None:
        self._clock, self._limits = clock, limits
        self._askers: dict[tuple[Via, str], _Asker] = {}
        self._opened: float | None = None
        self._weights = False

    def open(self, *, weights: bool = True) -> None:
        """The doors are open from now on, with or without the one where weights are asked for. Until each had the
        time to ask, it is not known who will."""
        self._opened, self._weights = self._clock.monotonic(), weights

    def answered(self, via: Via, address: str, told: str, made: float) -> None:
        """`address` has received `told`, which was made up at `made` (monotonic)."""
        asker = self._askers.pop((via, address), None) or _Asker(0.0, "")
        asker.at, asker.told = self._clock.now(), told
        asker.answers.append(made)
        self._askers[via, address] = asker
        if len(self._askers) > MAX_ASKERS:
            del self._askers[next(iter(self._askers))]

    async def until_told(self, begin: float) -> list[str]:
        """Wait until all that have asked lately know what has held since `begin` (monotonic). Returns who still
        may not know it at the end of the time; nobody, and at once, where nobody asks."""
        ends = begin + self._limits.at_most_s
        while True:
            now = self._clock.monotonic()
            missing = self._missing(begin, now)
            if not missing or now >= ends:
                return missing
            await self._clock.sleep(POLL_S)

    def _missing(self, begin: float, now: float) -> list[str]:
        every = self._limits.every_s
        missing = [
            f"{address} ({via})"
            for (via, address), asker in self._askers.items()
            if self._is_regular(via, asker, now)
            and (asker.since(begin) < ANSWERS[via] or now - begin < ANSWERS[via] * every)
        ]
        if not missing and self._opened is not None and now - self._opened < every:
            return ["whoever has not asked since this agent started"]
        return missing

    def _is_regular(self, via: Via, asker: _Asker, now: float) -> bool:
        return asker.since(now - RECENT_S) >= min(2, ANSWERS[via])

    def ask_for_weights(self) -> bool:
        """Whether somebody does, or may not have had the time to yet."""
        now = self._clock.monotonic()
        fresh = self._opened is not None and now - self._opened < self._limits.every_s
        return (self._weights and fresh) or any(
            via is Via.AGENT_CHECK and self._is_regular(via, asker, now)
            for (via, _), asker in self._askers.items()
        )

    def seen(self) -> list[Asker]:
        """Who asked in the last minute."""
        now = self._clock.monotonic()
        return [
            Asker(address=address, via=via, asked=asker.at, told=short(asker.told, 200))
            for (via, address), asker in self._askers.items()
            if self._is_regular(via, asker, now)
        ]
