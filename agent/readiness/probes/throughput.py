"""Tasks a minute: how many were done, and how many were asked for (seed 001: 100, where there is demand)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from agent.openclaw.cli import OpenClaw
from agent.openclaw.tasks import CANCELLED, DONE, RUNNING, Tasks
from agent.readiness.probes.call import CallProbe
from agent.readiness.probes.tasks import ENOUGH_S, TaskReader
from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.readiness import CheckStatus

IN_TIME_S = 120.0
"""A task that has run for less than this is on its way, and is missed by nobody yet."""
KEEPS_UP = 0.95
"""Of what is due: who does so much keeps up with the demand, whatever the floor is."""
RETURN = 1.05


class ThroughputProbe(CallProbe):
    id = "throughput"

    def __init__(self, reader: TaskReader, period_s: float, floor: float) -> None:
        super().__init__(reader.gateway, reader.openclaw, period_s)
        self._reader, self._floor = reader, floor
        self._low = False

    async def ask(self, openclaw: OpenClaw) -> Reading:
        tasks = await self._reader.read(openclaw)
        if tasks.minutes * 60 < ENOUGH_S:
            self._low = False
            early = "too early to judge: the gateway has just started"
            return Reading(CheckStatus.PASS, early, None, "tasks/min", self._floor)
        rates, (ended, failed) = rates_of(tasks), ends_of(tasks)
        self._low = is_low(rates, self._floor, self._low)
        reason = (
            f"{rates.done:.0f} tasks a minute are done and {rates.asked:.0f} are asked for;"
            f" the floor is {self._floor:g}"
        )
        return Reading(
            CheckStatus.FAIL if self._low else CheckStatus.PASS,
            reason if self._low else "",
            round(rates.done, 2),
            "tasks/min",
            self._floor,
            raw=canonical_json(asdict(rates)),
            series={
                "tasks_per_minute": rates.done,
                "tasks_asked_per_minute": rates.asked,
                "tasks_ended_per_minute": ended,
                "tasks_failed_per_minute": failed,
            },
        )


@dataclass(frozen=True)
class Rates:
    """Tasks a minute. `due` are those asked for that ought to be done by now."""

    done: float
    asked: float
    due: float


def rates_of(tasks: Tasks) -> Rates:
    """Asked for is what came in and what waits from before; done is what succeeded."""
    came = {task.id for task in tasks.listed if task.created >= tasks.since}
    came |= {task.id for task in tasks.waiting}
    done = [
        task
        for task in tasks.listed
        if task.status in DONE and task.ended is not None and task.ended >= tasks.since
    ]
    running = [
        task
        for task in tasks.listed
        if task.status == RUNNING
        and task.created >= tasks.since
        and tasks.at - (task.started or task.created) < IN_TIME_S
    ]
    minutes = tasks.minutes
    asked = len(came) / minutes
    return Rates(len(done) / minutes, asked, asked - len(running) / minutes)


def ends_of(tasks: Tasks) -> tuple[float, float]:
    """Tasks a minute that ended, and those of them that failed: not those that somebody cancelled."""
    ended = [task for task in tasks.listed if task.ended is not None and task.ended >= tasks.since]
    failed = sum(task.status not in DONE and task.status != CANCELLED for task in ended)
    return len(ended) / tasks.minutes, failed / tasks.minutes


def is_low(rates: Rates, floor: float, before: bool) -> bool:
    """Only while at least the floor is due; once low, a clear return over the floor counts as better."""
    if floor <= 0 or rates.due < floor or rates.done >= rates.due * KEEPS_UP:
        return False
    return rates.done < (floor * RETURN if before else floor)
