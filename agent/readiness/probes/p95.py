"""How long tasks wait from their creation to their start: the gateway's own part of a response (seed 001: 2 s).

How long they run is recorded beside it; that part belongs to the model's provider.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.tasks import Tasks
from agent.readiness.guards import Ceiling
from agent.readiness.probes.call import CallProbe
from agent.readiness.probes.tasks import TaskReader
from agent.readiness.reading import Reading
from shared.readiness import CheckStatus

ENOUGH = 20
"""Fewer tasks have no 95th percentile worth the name."""


class P95Probe(CallProbe):
    id = "p95"

    def __init__(self, reader: TaskReader, period_s: float, limit_ms: float) -> None:
        super().__init__(reader.gateway, reader.openclaw, period_s)
        self._reader = reader
        self._ceiling = Ceiling(limit_ms)
        self._before: CheckStatus | None = None

    async def ask(self, openclaw: OpenClaw) -> Reading:
        tasks = await self._reader.read(openclaw)
        waits, runs = waits_ms(tasks, self._ceiling.limit), runs_ms(tasks)
        series = {"run_p95_ms": p95(runs)} if len(runs) >= ENOUGH else {}
        if len(waits) < ENOUGH:
            self._before = None
            few = f"too few to judge: {len(waits)} tasks started in {tasks.minutes:.0f} min"
            return Reading(
                CheckStatus.PASS, few, None, "ms", self._ceiling.limit, raw=tasks.raw, series=series
            )
        return self._judge(p95(waits), series, tasks.raw)

    def _judge(self, observed: float, series: dict[str, float], raw: bytes) -> Reading:
        self._before = self._ceiling.judge(observed, self._before)
        limit = self._ceiling.limit
        late = self._before is CheckStatus.FAIL
        return Reading(
            self._before,
            f"one task in 20 waits {observed:.0f} ms or longer for its start;"
            f" the limit is {limit:.0f} ms"
            if late
            else "",
            round(observed, 1),
            "ms",
            limit,
            raw=raw,
            series={**series, "start_p95_ms": observed},
        )


def waits_ms(tasks: Tasks, limit_ms: float) -> list[float]:
    """Of those that started in the window, and of those that wait longer than the limit already: a queue that
    stands still would otherwise look like a quick one."""
    started = [
        (task.started - task.created) * 1000
        for task in tasks.listed
        if task.started is not None and task.started >= tasks.since
    ]
    waiting = [(tasks.at - task.created) * 1000 for task in tasks.waiting if task.started is None]
    return started + [wait for wait in waiting if wait > limit_ms]


def runs_ms(tasks: Tasks) -> list[float]:
    return [
        (task.ended - task.started) * 1000
        for task in tasks.listed
        if task.started is not None and task.ended is not None and task.ended >= tasks.since
    ]


def p95(values: Iterable[float]) -> float:
    """The nearest rank: of 20 values the 19th."""
    ranked = sorted(values)
    return ranked[math.ceil(0.95 * len(ranked)) - 1]
