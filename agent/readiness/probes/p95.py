"""How long tasks wait from their creation to their start: the gateway's own part of a response (seed 001: 2 s).

A task that waits for an earlier one of its session waits for the model's answer to that one: this does not
count. How long tasks run is recorded beside it; that part belongs to the model's provider too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from agent.openclaw.cli import OpenClaw
from agent.openclaw.tasks import RUNNING, WAITING, Task, Tasks
from agent.readiness.guards import Threshold
from agent.readiness.probes.call import CallProbe
from agent.readiness.probes.tasks import TaskReader
from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.readiness import CheckStatus

ENOUGH = 20
"""Fewer tasks have no 95th percentile worth the name."""


class P95Probe(CallProbe):
    id = "p95"

    def __init__(self, reader: TaskReader, period_s: float, limit_ms: float) -> None:
        super().__init__(reader.gateway, reader.openclaw, period_s)
        self._reader = reader
        self._threshold = Threshold(limit_ms)

    async def ask(self, openclaw: OpenClaw) -> Reading:
        tasks = await self._reader.read(openclaw)
        limit = self._threshold.limit
        waits, runs = waits_ms(tasks, limit), runs_ms(tasks)
        series = {"run_p95_ms": p95(runs)} if len(runs) >= ENOUGH else {}
        if len(waits) < ENOUGH:
            self._threshold.forget()
            few = f"too few to judge: {len(waits)} tasks started in {tasks.minutes:.0f} min"
            raw = canonical_json(series)
            return Reading(CheckStatus.PASS, few, None, "ms", limit, raw=raw, series=series)
        return self._judge({**series, "start_p95_ms": p95(waits)})

    def _judge(self, series: dict[str, float]) -> Reading:
        observed, limit = series["start_p95_ms"], self._threshold.limit
        status = self._threshold.judge(observed)
        late = status is CheckStatus.FAIL
        return Reading(
            status,
            f"one task in 20 waits {observed:.0f} ms or longer for its start;"
            f" the limit is {limit:.0f} ms"
            if late
            else "",
            round(observed, 1),
            "ms",
            limit,
            raw=canonical_json(series),
            series=series,
        )


def waits_ms(tasks: Tasks, limit_ms: float) -> list[float]:
    """Of those that were created and started in the window, and of those that wait longer than the limit
    already: a queue that stands still would otherwise look like a quick one."""
    sessions: defaultdict[str, dict[str, Task]] = defaultdict(dict)
    for task in (*tasks.listed, *tasks.waiting):
        sessions[task.session][task.id] = task
    waits = []
    for session in sessions.values():
        for task, wait in _waits(session.values(), tasks.at):
            is_late = task.status == WAITING and wait > limit_ms
            if is_late or (task.started is not None and task.created >= tasks.since):
                waits.append(wait)
    return waits


def _waits(session: Iterable[Task], now: float) -> Iterator[tuple[Task, float]]:
    """Milliseconds for each that started or waits: from when on nothing before it in its session was left."""
    free = 0.0
    for task in sorted(session, key=lambda task: task.started or math.inf):
        if task.started is None and task.status != WAITING:
            continue
        until = now if task.started is None else task.started
        yield task, (until - max(task.created, min(free, until))) * 1000
        if task.started is not None:
            free = max(free, math.inf if task.status == RUNNING else task.ended or task.updated)


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
