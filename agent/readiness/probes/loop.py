"""The agent's own event loop: how late its timers were. Self-doubt, so never a failure: an agent that was
held up has no right to blame its gateway or a peer for that."""

from __future__ import annotations

import asyncio
from collections import deque

from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.readiness import CheckStatus

WINDOW_S = 60.0
READ_EVERY = 10
"""Timers to a reading: each reading makes a document, a timer nothing."""


class LoopProbe:
    """One timer, due every `tick_s`; `read` starts it. Series `agent_loop_ms`: the latest it was within the
    last minute."""

    id = "loop"
    timeout_s = 10.0

    def __init__(self, tick_s: float, limit_ms: float) -> None:
        self._tick_s, self._limit_ms = tick_s, limit_ms
        self._late: deque[float] = deque(maxlen=max(1, int(WINDOW_S / tick_s)))
        """In ms, newest last."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.period_s = READ_EVERY * tick_s
        self.stale_after_s = 3 * self.period_s + self.timeout_s

    async def read(self) -> Reading:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._start(loop)
        worst = max(self._late, default=0.0)
        late = worst > self._limit_ms
        reason = ""
        if late:
            reason = (
                f"the agent's own event loop was held up for {worst:.0f} ms within the last minute;"
                f" what it measured then may be its own delay"
            )
        return Reading(
            CheckStatus.WARN if late else CheckStatus.PASS,
            reason,
            round(worst, 1),
            "ms",
            self._limit_ms,
            raw=canonical_json({"worst_ms": round(worst, 1)}),
            series={"agent_loop_ms": worst},
        )

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._tick_s, self._fired, loop, loop.time() + self._tick_s)

    def _fired(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._late.append(max(0.0, loop.time() - due) * 1000)
        self._start(loop)
