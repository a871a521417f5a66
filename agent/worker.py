"""This node as one of a cohort of workers: which queue and build it serves, and whether it takes new work.

A drain covers the node's share of traffic and does not change it: load balancers are told 0 while it lasts, and the
share that counted before counts again after it. What the gateway has accepted it finishes, on the build that began
it. The gateway is not suspended: that would make readiness red. A drain is kept over a restart, and outlives the
coordinator; an upgrade ends it, because the node is then of another build.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from agent.openclaw.tasks import RUNNING, Tasks
from agent.workerconfig import WorkerConfig
from shared.clock import Clock
from shared.durable import write_durable
from shared.errors import BadInputError, CommandError
from shared.nodes import Cohort, CohortIntent, CohortState
from shared.wire import Wire

log = structlog.get_logger()

LOOK_EVERY_S: Final = 5.0
COUNT_BY_CLI_EVERY_S: Final = 120.0
"""Where the gateway lets in nobody but its CLI: a count then costs seconds of CPU."""
BUILD_DIGITS: Final = 12
NO_BUILD: Final = "none"
"""Of a worker that has no release yet."""


class _Stored(Wire):
    intent: CohortIntent | None = None
    since: float = 0
    draining: bool = False


class Worker:
    """`release` is what the node runs, `tasks` asks the gateway, `is_cheap` says whether that costs little, `frozen`
    whether this node must not widen."""

    def __init__(
        self,
        config: WorkerConfig | None,
        path: Path,
        clock: Clock,
        release: Callable[[], str | None],
        tasks: Callable[[], Awaitable[Tasks]],
        is_cheap: Callable[[], bool],
        frozen: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._config, self._path, self._clock = config, path, clock
        self._release, self._tasks, self._is_cheap = release, tasks, is_cheap
        self._frozen = frozen
        self._on_change = on_change
        self._stored = _Stored()
        self._seen: Tasks | None = None
        self._silent = ""

    async def load(self) -> None:
        """What an earlier agent has heard; before anything else."""
        self._stored = await asyncio.to_thread(_read, self._path)

    @property
    def heard(self) -> CohortIntent | None:
        """The coordinator's last word, so that it need not say it again."""
        return self._stored.intent

    @property
    def _build(self) -> str:
        release = self._release()
        default = NO_BUILD if release is None else release[:BUILD_DIGITS]
        return default if self._config is None else self._config.build_id or default

    def share(self, percent: int) -> int:
        """Of the share that is wanted what load balancers are to hear."""
        return 0 if self._config is not None and self._stored.draining else percent

    def cohort(self) -> Cohort | None:
        """For the report; None for what is no worker."""
        if self._config is None:
            return None
        active, waiting, oldest = _counts(self._seen)
        return Cohort(
            queue=self._config.queue,
            build_id=self._build,
            state=self._state(active, waiting),
            since=self._stored.since,
            active=active,
            waiting=waiting,
            oldest=oldest,
            reason=self._reason(),
        )

    def _state(self, active: int | None, waiting: int | None) -> CohortState:
        if not self._stored.draining:
            return CohortState.ACTIVE
        return CohortState.DRAINED if active == 0 and waiting == 0 else CohortState.DRAINING

    def _reason(self) -> str:
        if self._stored.draining and not self._wanted():
            return "it may take work again, and is frozen: its share stays 0 until that ends"
        return self._silent

    def _wanted(self) -> bool:
        """Whether the last word is that the build that runs here takes no new work."""
        intent = self._stored.intent
        if intent is None or self._config is None or not intent.drain:
            return False
        return (intent.queue, intent.build_id) == (self._config.queue, self._build)

    async def told(self, intent: CohortIntent | None) -> None:
        """The coordinator's word. None is one that knows of no cohorts: what it said before still counts."""
        if intent is not None and intent != self._stored.intent:
            await self._write(self._stored.model_copy(update={"intent": intent}))
        await self.judge()

    async def judge(self) -> None:
        """Begins a drain at once. Ends one only while this node is not frozen: that widens its traffic."""
        draining = self._wanted() or (self._stored.draining and self._frozen())
        if draining == self._stored.draining:
            return
        changed = {"draining": draining, "since": self._clock.now()}
        await self._write(self._stored.model_copy(update=changed))
        log.info("no new work" if draining else "work again", build=self._build)
        self._on_change()

    async def _write(self, stored: _Stored) -> None:
        await asyncio.to_thread(write_durable, self._path, stored.canonical())
        self._stored = stored

    async def run(self) -> None:
        """Counts what is in hand, and notices what lets a drain end."""
        due = self._clock.monotonic()
        while self._config is not None:
            await self.judge()
            if self._clock.monotonic() >= due:
                await self.count()
                cheap = self._is_cheap()
                due = self._clock.monotonic() + (LOOK_EVERY_S if cheap else COUNT_BY_CLI_EVERY_S)
            await self._clock.sleep(LOOK_EVERY_S)

    async def count(self) -> None:
        before = self.cohort()
        try:
            self._seen, self._silent = await self._tasks(), ""
        except CommandError as error:
            self._seen, self._silent = (
                None,
                f"the gateway does not say what it has in hand: {error}",
            )
        now = self.cohort()
        if before is not None and now is not None and before.state is not now.state:
            self._on_change()


def _counts(tasks: Tasks | None) -> tuple[int | None, int | None, float | None]:
    """Running, waiting, and when the one that waits longest was created."""
    if tasks is None:
        return None, None, None
    running = sum(task.status == RUNNING for task in tasks.listed)
    oldest = min((task.created for task in tasks.waiting), default=None)
    return running, len(tasks.waiting), oldest


def _read(path: Path) -> _Stored:
    try:
        return _Stored.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return _Stored()
    except BadInputError as error:
        log.warning("the word on new work is taken as none", file=str(path), reason=str(error))
        return _Stored()
