"""A supervisor for hosts without launchd: keeps one gateway alive, and lets it outlive the agent.

The gateway leads its own session and writes to its own log. Its pid and creation time are durable,
so that a restarted agent adopts it instead of starting a second one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog

from agent.service.base import Pid, ServiceSpec
from shared.clock import Clock
from shared.command import kill_group
from shared.durable import write_durable
from shared.errors import BadInputError, RollcallError
from shared.wire import Wire

log = structlog.get_logger()

POLL_S = 0.2
FIRST_RESTART_S = 0.5
LONGEST_RESTART_S = 30.0
HEALTHY_RUN_S = 30.0
MAX_LOG_BYTES = 32 << 20


class _State(Wire):
    wanted: bool = False
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = "/"
    log: str = "/dev/null"
    pid: int | None = None
    created: float | None = None

    def spec(self) -> ServiceSpec:
        return ServiceSpec(self.argv, self.env, Path(self.cwd), Path(self.log))


class ProcessService:
    """Implements GatewayService. `on_change` is called whenever the process came or went."""

    def __init__(self, folder: Path, clock: Clock, on_change: Callable[[], None]) -> None:
        self._file = folder / "gateway.json"
        self._clock = clock
        self._on_change = on_change
        self._state = self._load()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    def wanted(self) -> bool:
        return self._state.wanted

    def alive(self) -> Pid | None:
        """None also for a zombie, and for a stranger that has the number now."""
        state = self._state
        if state.pid is None or state.created is None:
            return None
        if self._child is not None and self._child.pid == state.pid and self._child.poll() is not None:
            return None
        try:
            process = psutil.Process(state.pid)
            same = abs(process.create_time() - state.created) < 0.05
            dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return Pid(state.pid, state.created) if same and not dead else None

    async def start(self, spec: ServiceSpec) -> Pid:
        async with self._lock:
            running = self.alive()
            if running is not None and self._state.spec() == spec and self._state.wanted:
                return running
            if running is not None:
                await self._end(running, 10.0)
            return self._spawn(spec)

    async def stop(self, timeout_s: float) -> None:
        async with self._lock:
            self._save(self._state.model_copy(update={"wanted": False}))
            running = self.alive()
            if running is not None:
                await self._end(running, timeout_s)
            self._on_change()

    async def resume(self) -> None:
        async with self._lock:
            if self._state.wanted and self.alive() is None:
                self._spawn(self._state.spec())

    async def keep(self) -> None:
        """Watch for ever; start the gateway again when it ends unasked, slower each time."""
        delay, died_at, was = FIRST_RESTART_S, None, self.alive()
        while True:
            await self._clock.sleep(POLL_S)
            running = self.alive()
            if running != was:
                self._on_change()
                was = running
            if running is not None or not self._state.wanted:
                died_at = None
                if running is not None and self._ran_well(running):
                    delay = FIRST_RESTART_S
                continue
            if died_at is None:
                died_at = self._clock.monotonic()
                log.warning("gateway ended unasked", pid=self._state.pid, restart_in_s=delay)
            if self._clock.monotonic() - died_at >= delay:
                delay = min(delay * 2, LONGEST_RESTART_S)
                died_at = None
                await self._restart()

    async def _restart(self) -> None:
        async with self._lock:
            if self._state.wanted and self.alive() is None:
                with contextlib.suppress(RollcallError):
                    self._spawn(self._state.spec())

    def _ran_well(self, running: Pid) -> bool:
        return self._clock.now() - running.created > HEALTHY_RUN_S

    def _spawn(self, spec: ServiceSpec) -> Pid:
        with contextlib.suppress(FileNotFoundError):
            if spec.log.stat().st_size > MAX_LOG_BYTES:
                spec.log.replace(spec.log.with_suffix(".1.log"))
        try:
            with spec.log.open("ab") as output:
                child = subprocess.Popen(  # a gateway outlives this loop; asyncio's transports would not let it
                    list(spec.argv),
                    env=spec.env,
                    cwd=spec.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            created = psutil.Process(child.pid).create_time()
        except (OSError, psutil.Error) as error:
            self._save(_State(wanted=True, argv=spec.argv, env=spec.env, cwd=str(spec.cwd), log=str(spec.log)))
            raise RollcallError(f"cannot start the gateway: {error}") from error
        self._child = child
        self._save(
            _State(
                wanted=True,
                argv=spec.argv,
                env=spec.env,
                cwd=str(spec.cwd),
                log=str(spec.log),
                pid=child.pid,
                created=created,
            )
        )
        self._on_change()
        return Pid(child.pid, created)

    async def _end(self, running: Pid, timeout_s: float) -> None:
        """SIGTERM, wait, then SIGKILL to the group and to children that left it."""
        family = _family(running)
        _signal(running, signal.SIGTERM)
        deadline = self._clock.monotonic() + timeout_s
        while self.alive() is not None and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
        if self.alive() is not None:
            log.warning("gateway ignored SIGTERM; killing it", pid=running.pid)
            kill_group(running.pid)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        while self.alive() is not None:
            await self._clock.sleep(0.05)

    def _save(self, state: _State) -> None:
        self._state = state
        write_durable(self._file, state.canonical())

    def _load(self) -> _State:
        try:
            return _State.from_bytes(self._file.read_bytes())
        except (FileNotFoundError, BadInputError):
            return _State()


def _family(running: Pid) -> list[psutil.Process]:
    try:
        return psutil.Process(running.pid).children(recursive=True)
    except psutil.Error:
        return []


def _signal(running: Pid, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, number)
