"""A gateway that the system's own service manager keeps: launchd or systemd.

The manager starts it again when it ends, at boot too, and knows its process. This class adds what both need:
a durable word on whether it is wanted, the proof that a start made a *new live process*, and limits on
every wait. What a start or a stop is in the manager's terms is the `Supervisor`'s part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from agent.service.base import Pid, ServiceSpec
from agent.service.processes import Sighting, end_all, family_of
from shared.clock import Clock
from shared.command import kill_group
from shared.durable import write_durable
from shared.errors import BadInputError, CommandError, RollcallError, UnavailableError
from shared.wire import Wire

log = structlog.get_logger()

POLL_S = 0.1
WATCH_S = 1.0
START_S = 45.0
"""Longer than launchd's throttle of 10 s and a slow disk."""
KILLED_S = 15.0
"""How long the manager may take to notice that what it would not end was killed."""
MEND_AFTER_S = 30.0
MEND_AT_MOST_EVERY_S = 300.0


class Supervisor(Protocol):
    """One job of a service manager. Every method is bounded in time; all may raise RollcallError."""

    name: str
    """How the manager calls it, for messages."""

    def definition(self, spec: ServiceSpec) -> str:
        """A fingerprint of what the manager is to hold; it changes when a restart must reload that."""
        ...

    async def main_pid(self) -> int | None: ...

    async def launch(self, spec: ServiceSpec, *, reload: bool, after_stop: bool) -> None:
        """Have a new process started, in place of one that runs. `reload`: the manager may hold another
        definition than this one. `after_stop`: that it is disabled was our own doing."""
        ...

    async def end(self) -> None:
        """Ask for its end, and that no boot and no login starts it meanwhile. Returns before it ended."""
        ...

    async def ended(self) -> bool: ...

    async def abandoned(self) -> bool:
        """Nothing runs, and the manager will not start it again by itself; nobody has forbidden it."""
        ...

    async def explain(self) -> str:
        """What the manager says of it, in a few words."""
        ...


class _Record(Wire):
    wanted: bool | None = None
    """None before the first word: what runs then is taken as it is."""
    held: str = ""


class SupervisedService:
    """Implements GatewayService. `on_change` is called whenever the process came or went."""

    def __init__(
        self, folder: Path, supervisor: Supervisor, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._file = folder / "supervised.json"
        self._supervisor, self._clock, self._on_change = supervisor, clock, on_change
        self._record = _Record()
        self._spec: ServiceSpec | None = None
        self._seen: Sighting | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """What an earlier agent left on record; nothing when that cannot be read."""
        with contextlib.suppress(FileNotFoundError, BadInputError):
            raw = await asyncio.to_thread(self._file.read_bytes)
            self._record = _Record.from_bytes(raw)

    async def alive(self) -> Pid | None:
        """None also while the manager cannot be asked: what nobody vouches for does not run."""
        try:
            return await self._look()
        except RollcallError as error:
            log.warning("the gateway's manager cannot be asked", reason=str(error))
            return None

    async def start(self, spec: ServiceSpec) -> Pid:
        """Raises UnavailableError when there is no new live process at the deadline."""
        async with self._lock:
            self._spec = spec
            before, definition = await self._look(), self._supervisor.definition(spec)
            same = self._record.held in ("", definition)
            if before is not None and self._record.wanted is not False and same:
                await self._save(wanted=True, held=definition)
                return before
            stopped, reload = self._record.wanted is False, self._record.held != definition
            await self._save(wanted=True, held=self._record.held)
            await self._supervisor.launch(spec, reload=reload, after_stop=stopped)
            await self._save(wanted=True, held=definition)
            started = await self._wait_for_new(before)
        self._on_change()
        return started

    async def stop(self, timeout_s: float) -> None:
        async with self._lock:
            await self._save(wanted=False, held=self._record.held)
            running, seen = await self._look(), self._seen
            family = await asyncio.to_thread(family_of, running.pid) if running else []
            await self._supervisor.end()
            if not await self._wait_for_end(seen, timeout_s):
                await self._kill(seen)
            await asyncio.to_thread(end_all, family)
        self._on_change()

    async def keep(self) -> None:
        """Watch for ever. The manager restarts what ends; a job that somebody unloaded would stay away
        for hours unnoticed (OPENCLAW.md, 6.1), so one that is wanted is brought back."""
        was, missing, pause = await self.alive(), 0.0, MEND_AFTER_S
        while True:
            await self._clock.sleep(WATCH_S)
            running = await self.alive()
            if running != was:
                was = running
                self._on_change()
            if running is not None:
                missing, pause = 0.0, MEND_AFTER_S
                continue
            missing += WATCH_S
            if missing >= pause:
                missing, pause = 0.0, min(pause * 2, MEND_AT_MOST_EVERY_S)
                await self._mend()

    async def _mend(self) -> None:
        spec = self._spec
        if spec is None:
            return
        try:
            async with self._lock:
                if not self._record.wanted or not await self._supervisor.abandoned():
                    return
                log.warning("the gateway's job was taken away; putting it back", job=self._name)
                await self._supervisor.launch(spec, reload=True, after_stop=False)
        except RollcallError as error:
            log.error("the gateway's job is away", job=self._name, reason=str(error))

    @property
    def _name(self) -> str:
        return self._supervisor.name

    async def _look(self) -> Pid | None:
        """The manager is asked only when the process it last named is gone: it never has two."""
        seen = self._seen
        if seen is not None and await asyncio.to_thread(seen.alive):
            return seen.pid
        number = await self._supervisor.main_pid()
        self._seen = None if number is None else await asyncio.to_thread(Sighting.of, number)
        return self._seen.pid if self._seen is not None else None

    async def _wait_for_new(self, before: Pid | None) -> Pid:
        ends = self._clock.monotonic() + START_S
        said = ""
        while True:
            try:
                now = await self._look()
            except CommandError as error:
                now, said = None, str(error)
            if now is not None and now != before:
                return now
            if self._clock.monotonic() >= ends:
                said = said or await self._supervisor.explain()
                raise UnavailableError(
                    f"{self._name} has no new live process after {START_S:.0f} s: {said}"
                )
            await self._clock.sleep(POLL_S)

    async def _wait_for_end(self, seen: Sighting | None, timeout_s: float) -> bool:
        """A manager that cannot be asked now is asked again while there is time."""
        ends = self._clock.monotonic() + timeout_s
        while True:
            dead = seen is None or not await asyncio.to_thread(seen.alive)
            with contextlib.suppress(CommandError):
                if dead and await self._supervisor.ended():
                    return True
            if self._clock.monotonic() >= ends:
                return False
            await self._clock.sleep(POLL_S)

    async def _kill(self, seen: Sighting | None) -> None:
        """Past its time. Raises UnavailableError when the job is still there after that."""
        if seen is not None:
            log.warning("the gateway did not end; killing it", job=self._name, pid=seen.pid.pid)
            kill_group(seen.pid.pid)
            await asyncio.to_thread(end_all, [seen.process])
        await self._supervisor.end()
        if not await self._wait_for_end(seen, KILLED_S):
            raise UnavailableError(f"{self._name} does not end: {await self._supervisor.explain()}")

    async def _save(self, *, wanted: bool, held: str) -> None:
        record = _Record(wanted=wanted, held=held)
        if record != self._record:
            await asyncio.to_thread(write_durable, self._file, record.canonical())
            self._record = record
