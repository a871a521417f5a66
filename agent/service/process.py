"""A supervisor for hosts without launchd: keeps one gateway alive, and lets it outlive the agent.

The gateway leads its own session and writes to its own log. Its pid and the mark in its environment
are durable, so that a restarted agent adopts it instead of starting a second one. An agent that is killed between
the start and that record is covered too: the start's mark was durable before, and the process carries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog

from agent.service.base import Pid, ServiceSpec
from agent.service.exits import until_ended
from agent.service.processes import end_all, family_of, rotate
from shared.account import Account, identity_of
from shared.clock import Clock
from shared.command import kill_group
from shared.durable import write_durable
from shared.errors import BadInputError, RollcallError
from shared.failpoint import fail_point
from shared.wire import Wire

log = structlog.get_logger()

POLL_S = 0.2
LOOK_EVERY_S = 5.0
FIRST_RESTART_S = 0.5
LONGEST_RESTART_S = 30.0
HEALTHY_RUN_S = 30.0
STOP_BEFORE_START_S = 10.0
MARK = "ROLLCALL_SERVICE_MARK"


class _State(Wire):
    wanted: bool = False
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = "/"
    log: str = "/dev/null"
    account: Account | None = None
    mark: str = ""
    pid: int | None = None
    started: float | None = None

    def spec(self) -> ServiceSpec:
        return ServiceSpec(self.argv, self.env, Path(self.cwd), Path(self.log), self.account)


class ProcessService:
    """Implements GatewayService. `on_change` is called whenever the process came or went."""

    def __init__(self, folder: Path, clock: Clock, on_change: Callable[[], None]) -> None:
        self._file = folder / "gateway.json"
        self._clock = clock
        self._on_change = on_change
        self._state = _State()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def open(
        cls, folder: Path, clock: Clock, on_change: Callable[[], None]
    ) -> ProcessService:
        """With what an earlier agent left on record."""
        service = cls(folder, clock, on_change)
        await asyncio.to_thread(service._load)
        return service

    async def alive(self) -> Pid | None:
        """A child of ours costs a look at its exit code, an adopted process one at its environment."""
        child, number = self._child, self._state.pid
        if number is None or (child is not None and child.pid == number):
            return self._look()
        return await asyncio.to_thread(self._look)

    async def start(self, spec: ServiceSpec) -> Pid:
        async with self._lock:
            running = await self.alive()
            if running is not None and self._state.spec() == spec and self._state.wanted:
                return running
            if running is not None:
                await self._end(running, STOP_BEFORE_START_S)
            started = await asyncio.to_thread(self._spawn, spec)
        self._on_change()
        return started

    async def stop(self, timeout_s: float) -> None:
        async with self._lock:
            await asyncio.to_thread(self._save, self._state.model_copy(update={"wanted": False}))
            running = await self.alive()
            if running is not None:
                await self._end(running, timeout_s)
        self._on_change()

    async def resume(self) -> None:
        async with self._lock:
            if self._state.wanted and await self.alive() is None:
                await asyncio.to_thread(self._spawn, self._state.spec())

    async def keep(self) -> None:
        """Watch for ever; start the gateway again when it ends unasked, slower each time."""
        delay, was = FIRST_RESTART_S, await self.alive()
        running = was
        while True:
            told = running is not None and await until_ended(running.pid, LOOK_EVERY_S)
            if not told:
                await self._clock.sleep(POLL_S)
            running = await self.alive()
            if running != was:
                was = running
                self._on_change()
            if running is not None:
                if self._clock.now() - running.started > HEALTHY_RUN_S:
                    delay = FIRST_RESTART_S
            elif self._state.wanted:
                log.warning("gateway ended unasked", pid=self._state.pid, restart_in_s=delay)
                await self._clock.sleep(delay)
                delay = min(delay * 2, LONGEST_RESTART_S)
                try:
                    await self.resume()
                except RollcallError as error:
                    log.error("gateway did not start", reason=str(error))

    def _look(self) -> Pid | None:
        """None also for a zombie, and for a stranger that has the number now. A child of ours is known
        by waiting for it; an adopted process by its mark, which no clock can change."""
        state, child = self._state, self._child
        if state.pid is None or state.started is None:
            return None
        if child is not None and child.pid == state.pid:
            return Pid(state.pid, state.started) if child.poll() is None else None
        try:
            process = psutil.Process(state.pid)
            same = process.environ().get(MARK) == state.mark
            dead = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return None
        return Pid(state.pid, state.started) if same and not dead else None

    def _spawn(self, spec: ServiceSpec) -> Pid:
        wanted = _State(
            wanted=True,
            argv=spec.argv,
            env=spec.env,
            cwd=str(spec.cwd),
            log=str(spec.log),
            account=spec.account,
            mark=secrets.token_hex(8),
        )
        self._save(wanted)
        fail_point("service.spawn")
        rotate(spec.log)
        try:
            with spec.log.open("ab") as output:
                # Not asyncio's: its transport would end the gateway together with this agent.
                child = subprocess.Popen(
                    list(spec.argv),
                    env={**spec.env, MARK: wanted.mark},
                    cwd=spec.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **identity_of(spec.account),
                )
        except OSError as error:
            raise RollcallError(f"cannot start the gateway: {error}") from error
        fail_point("service.spawned")
        self._child = child
        started = self._clock.now()
        self._save(wanted.model_copy(update={"pid": child.pid, "started": started}))
        return Pid(child.pid, started)

    async def _end(self, running: Pid, timeout_s: float) -> None:
        """SIGTERM, wait, then SIGKILL to the group and to children that left it."""
        family = await asyncio.to_thread(family_of, running.pid)
        _signal(running, signal.SIGTERM)
        deadline = self._clock.monotonic() + timeout_s
        while await self.alive() is not None and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
        if await self.alive() is not None:
            log.warning("gateway ignored SIGTERM; killing it", pid=running.pid)
            kill_group(running.pid)
        await asyncio.to_thread(end_all, family)
        while await self.alive() is not None:
            await self._clock.sleep(0.05)

    def _save(self, state: _State) -> None:
        self._state = state
        write_durable(self._file, state.canonical())

    def _load(self) -> None:
        try:
            self._state = _State.from_bytes(self._file.read_bytes())
        except (FileNotFoundError, BadInputError):
            return
        if self._state.mark and self._state.pid is None:
            found = _marked(self._state.mark)
            if found is not None:
                self._save(
                    self._state.model_copy(update={"pid": found, "started": self._clock.now()})
                )


def _signal(running: Pid, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, number)


def _marked(mark: str) -> int | None:
    """The process that was started under this mark by an agent that did not live to record it: the
    one that leads its session, since its children inherit the mark."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and os.getsid(process.pid) == process.pid:
                return process.pid
    return None
