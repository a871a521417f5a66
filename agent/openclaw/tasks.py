"""The gateway's tasks: what was asked for, what was done, and how long each waited.

One request has the 500 that moved last, another those that still wait. Older ones are left out: at more than 50
tasks a minute the page covers less than the window, and the rates are then of what it covers. Going on to a next
page does not work on a busy gateway: each change of a task makes the cursor void (2026.9.6).

A task that waits behind another one has status `running` as well, and `startedAt` is then when it was created
(both releases; 2026.9.6 says `execution.state: queued` besides). `startedAt` moves when it really starts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from shared.errors import CommandError

METHOD = "tasks.list"
PAGE = 500
"""The most that the gateway gives at once."""
WINDOW_S = 600.0
DONE = {"completed", "succeeded"}
WAITING, RUNNING, CANCELLED = "queued", "running", "cancelled"


@dataclass(frozen=True)
class Task:
    """Times in seconds since the epoch; None for what has not happened yet. Tasks of one session run one after
    the other."""

    id: str
    session: str
    status: str
    created: float
    updated: float
    started: float | None
    ended: float | None


@dataclass(frozen=True)
class Tasks:
    """`since` is how far back `listed` is complete; `waiting`, of which some are in `listed` too, may be older."""

    at: float
    since: float
    listed: tuple[Task, ...]
    waiting: tuple[Task, ...]

    @property
    def minutes(self) -> float:
        return (self.at - self.since) / 60


async def read_tasks(gateway: Gateway, openclaw: OpenClaw, now: float, since: float) -> Tasks:
    """Of the last 10 minutes before `now`, and not before `since`. Raises CommandError when the gateway does
    not say."""
    page, queue = await asyncio.gather(
        gateway.call(openclaw, METHOD, {"limit": PAGE}),
        gateway.call(openclaw, METHOD, {"limit": PAGE, "status": WAITING}),
    )
    listed, waiting = parse_tasks(page.value), parse_tasks(queue.value)
    since = max(since, now - WINDOW_S)
    if len(listed) >= PAGE:
        since = max(since, min(task.updated for task in listed))
    behind = {task.id: task for task in (*waiting, *listed) if task.status == WAITING}
    return Tasks(now, min(since, now), listed, tuple(behind.values()))


def parse_tasks(value: dict[str, Any]) -> tuple[Task, ...]:
    """What `tasks.list` answers, or what the CLI's `tasks list --json` prints. Raises CommandError."""
    listed = value.get("tasks")
    if not isinstance(listed, list):
        raise CommandError("the gateway's tasks have an unknown form")
    return tuple(_task(each) for each in listed)


def _task(about: Any) -> Task:
    if not isinstance(about, dict):
        raise CommandError("a task of the gateway has an unknown form")
    created = _seconds(about, "createdAt")
    if created is None or not isinstance(about.get("status"), str):
        raise CommandError("a task of the gateway lacks its status or its time")
    started, ended = _seconds(about, "startedAt"), _seconds(about, "endedAt")
    moved = _seconds(about, "updatedAt") or _seconds(about, "lastEventAt")
    updated, status = moved or ended or started or created, about["status"]
    if status == RUNNING and _is_behind(about, created, started, updated):
        status, started = WAITING, None
    number = str(about.get("taskId"))
    session = str(about.get("childSessionKey") or about.get("sessionKey") or number)
    return Task(number, session, status, created, updated, started, ended)


def _is_behind(
    about: dict[str, Any], created: float, started: float | None, updated: float
) -> bool:
    execution = about.get("execution")
    if isinstance(execution, dict):
        return execution.get("state") == "queued"
    return started == created == updated


def _seconds(about: dict[str, Any], name: str) -> float | None:
    """From milliseconds. Raises CommandError for anything but a number."""
    value = about.get(name)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise CommandError(f"a task of the gateway has {name} in an unknown form")
    return float(value) / 1000
