"""Coordinators that die: each is a process of its own, killed with SIGKILL at a named place and started again.

They are forked from a process that has everything imported already: a start takes a fraction of a second, so that a
test can afford to kill at many places.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.cli.client import Client
from coordinator.home import HomePaths
from coordinator.server import Settings, run_until_signal
from shared import logs
from shared.clock import SystemClock
from shared.failpoint import ARMED, REACHED, VARIABLE
from shared.ports import free_port
from tests.support.alertkit import configured
from tests.support.coordinatorkit import Reached
from tests.support.tufkit import Operator

UP, ENDED = "up", "ended"
START_S, DYING_S = 200.0, 5.0


class Mother:
    """The process that coordinators are forked from. One lives at a time."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self.folder = process, folder
        self.lives = 0
        """How many have been started."""

    async def _say(self, word: dict[str, object]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("started without a pipe")
        self._process.stdin.write(json.dumps(word).encode() + b"\n")
        await self._process.stdin.drain()

    async def heard(self, within_s: float | None = START_S) -> str:
        """`up` or `ended`."""
        if self._process.stdout is None:
            raise RuntimeError("started without a pipe")
        async with asyncio.timeout(within_s):
            return (await self._process.stdout.readline()).decode().strip()

    async def bear(self, home: Path, port: int) -> None:
        self.lives += 1
        await self._say({"home": str(home), "port": port})
        if (heard := await self.heard()) != UP:
            raise RuntimeError(f"the coordinator {heard}; see {home}/logs")

    async def end(self) -> None:
        """SIGKILL, and nobody has asked it whether it likes that."""
        await self._say({"kill": True})

    def arm(self, *names: str) -> None:
        (self.folder / REACHED).write_text("")
        (self.folder / ARMED).write_text("\n".join(names))

    def left(self) -> list[str]:
        return (self.folder / ARMED).read_text().split()


@asynccontextmanager
async def mother(root: Path) -> AsyncIterator[Mother]:
    folder = root / "failpoints"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.mortal",
        env={**os.environ, VARIABLE: str(folder)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Mother(process, folder)
    made.arm()
    try:
        if await made.heard() != UP:
            raise RuntimeError("no coordinator can be forked")
        yield made
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


@dataclass
class Mortal(Reached):
    """One home, and whoever lives in it now."""

    mother: Mother

    async def start(self) -> None:
        await self.mother.bear(self.settings.paths.root, self.settings.port)

    async def kill(self) -> None:
        await self.mother.end()
        await self.died()

    async def died(self, within_s: float | None = START_S) -> None:
        if (heard := await self.mother.heard(within_s)) != ENDED:
            raise RuntimeError(f"it did not end: {heard}")

    async def live_again(self) -> None:
        """If it has died by itself."""
        try:
            await self.died(DYING_S)
        except TimeoutError:
            return
        await self.start()


@asynccontextmanager
async def run_mortal(root: Path, alerts: str = "") -> AsyncIterator[Mortal]:
    """Signed, and ready. `alerts` is its alerts.toml."""
    port, paths = free_port(), HomePaths(root / "home")
    settings = Settings(paths, "test", "127.0.0.1", port, None)
    paths.root.mkdir(mode=0o700)
    if alerts:
        configured(paths.root, alerts)
    async with mother(root) as made:
        await made.bear(paths.root, port)
        client = await asyncio.to_thread(Client, paths.client)
        url = f"https://127.0.0.1:{port}"
        mortal = Mortal(root, url, Operator("operator"), client, settings, made)
        await mortal.sign_fleet()
        yield mortal


def _tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _live(home: str, port: int) -> int:
    """The pid of a new coordinator, which says `up` by itself."""
    if (pid := os.fork()) != 0:
        return pid
    try:
        logs.configure(Path(home) / "logs" / "coordinator.log")
        settings = Settings(HomePaths(Path(home)), "test", "127.0.0.1", port, None)
        asyncio.run(run_until_signal(settings, SystemClock(), lambda _: _tell(UP)))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def main() -> None:
    """Forks a coordinator for each line with a home; tells when one is up, and when and how it has ended. Without
    threads: nothing else forks well."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _tell(UP)
    pid, text = 0, b""
    while True:
        ready = _wait(sys.stdin.fileno(), read)
        if read in ready:
            os.read(read, 4096)
            if pid and os.waitpid(pid, os.WNOHANG)[0]:
                pid = 0
                _tell(ENDED)
        if sys.stdin.fileno() not in ready:
            continue
        chunk = os.read(sys.stdin.fileno(), 4096)
        if not chunk:
            break
        text += chunk
        while b"\n" in text:
            line, _, text = text.partition(b"\n")
            word = json.loads(line)
            if "home" in word:
                pid = _live(word["home"], word["port"])
            elif pid:
                os.kill(pid, signal.SIGKILL)
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait(*files: int) -> list[int]:
    return select.select(files, [], [])[0]


if __name__ == "__main__":
    main()
