"""A gateway that nobody keeps: started, watched and stopped by hand, for the sides that are not ours."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.benchmarks.outages import Answer, Silence, parse, silence
from scripts.benchmarks.prober import ask
from scripts.minifleet.workspace import Workspace
from shared.command import kill_group
from shared.errors import RollcallError

ROOT = Path(__file__).resolve().parents[2]
READY_S = 240.0
STOP_S = 60.0
POLL_S = 0.05
SETTLED_S = 3.0
"""A gateway that became ready still loads what it had put off; nobody is measured against that."""


@dataclass(frozen=True)
class PlainGateway:
    """One process of one tree."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @classmethod
    async def start(
        cls, argv: list[str], env: Mapping[str, str], home: Path, port: int, log: Path
    ) -> PlainGateway:
        return cls(await asyncio.to_thread(_spawn, argv, env, home, log), port, log)

    async def until_ready(self) -> None:
        """Raises RollcallError when it ends before, or never is."""
        ends = time.monotonic() + READY_S
        while await asyncio.to_thread(ask, self.port) is not Answer.GOOD:
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RollcallError(f"a gateway did not get ready; it said: {_tail(self.log)}")
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, STOP_S)
        kill_group(self.process.pid)


@dataclass
class Watch:
    """Empty until the watching is over."""

    seen: Silence | None = None

    def result(self) -> Silence:
        """Raises RollcallError when the gateway answered all the time: then nothing was measured."""
        if self.seen is None or not self.seen.gaps:
            raise RollcallError("the gateway never stopped answering")
        return self.seen


@asynccontextmanager
async def watching(workspace: Workspace, port: int, name: str) -> AsyncIterator[Watch]:
    """Have the prober look at a gateway that is ready, while the body moves it and has it ready again."""
    await until_settled(port)
    file, watch = workspace.root / f"{name}.probes", Watch()
    file.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "scripts.benchmarks.prober", str(port), str(file)]
    prober = await asyncio.create_subprocess_exec(*argv, env=workspace.environment(), cwd=ROOT)
    try:
        await until(lambda: file.exists() and file.stat().st_size > 0, "the prober did not start")
        yield watch
        await until_settled(port)
    finally:
        if prober.returncode is None:
            prober.kill()
        await prober.wait()
    with await asyncio.to_thread(file.open) as lines:
        watch.seen = silence(parse(lines))


async def until_settled(port: int) -> None:
    """Ready, and still so a while later."""
    await until(lambda: ask(port) is Answer.GOOD, f"no gateway is ready on port {port}")
    await asyncio.sleep(SETTLED_S)
    await until(lambda: ask(port) is Answer.GOOD, f"the gateway on port {port} is gone again")


async def until(true: Callable[[], bool], otherwise: str) -> None:
    """Raises RollcallError with `otherwise`. The predicate may block: it runs in a thread."""
    ends = time.monotonic() + READY_S
    while not await asyncio.to_thread(true):
        if time.monotonic() > ends:
            raise RollcallError(otherwise)
        await asyncio.sleep(POLL_S)


async def end_gateways(home: Path) -> None:
    """Every process with this HOME, by its id: an agent's gateway outlives it."""
    await asyncio.to_thread(_end_all, str(home))


def _end_all(home: str) -> None:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == home:
                process.terminate()
                found.append(process)
        except (psutil.Error, OSError):
            continue
    _, alive = psutil.wait_procs(found, timeout=STOP_S)
    for process in alive:
        process.kill()


def _spawn(
    argv: list[str], env: Mapping[str, str], home: Path, log: Path
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "nothing"
