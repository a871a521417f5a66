"""Many nodes in few processes: how a large fleet behaves where there is one small machine (fault 41).

`python -m scripts.lab.crowd [--nodes N] [--processes P] [--minutes M]`: every second a node raises a red, and clears
it a little later. All nodes talk over the loopback of one network namespace. Needs root on Linux.

Exit codes: 0 all of it was delivered in time and memory and descriptors stayed flat, 1 not so, 2 usage,
130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lab.homes import make_homes
from scripts.lab.network import Network
from scripts.lab.node import end_with_sigterm
from scripts.lab.process import LabProcess, python
from shared.terminal import EXIT_INTERRUPTED, say

MIB = 1 << 20
PORT = 7465
PLACE = "crowd"
UP_S = 300.0
QUIET_S = 3.0
CLEARED_AFTER_S = 5.0
PATIENCE_S = 15.0
"""After a red, before it is asked who has acked it: whoever has not by then is not counted as late but missed."""
LOOK_EVERY_S = 5.0
P99_S = 3.0
GROWTH = 0.1
SLACK_MIB, SLACK_DESCRIPTORS = 8.0, 16
"""Of one process, beyond the share, from the first quarter to the last."""


@dataclass
class Seen:
    """`acked` in seconds, one for each red and peer; `footprints` of each process, in order: MiB, descriptors."""

    wanted: int = 0
    acked: list[float] = field(default_factory=list)
    footprints: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    @property
    def p99(self) -> float:
        return sorted(self.acked)[len(self.acked) * 99 // 100]

    def faults(self) -> list[str]:
        """What is not as it has to be; empty where all is."""
        found = []
        if missed := self.wanted - len(self.acked):
            found.append(f"{missed} of {self.wanted} deliveries were missed")
        if self.acked and self.p99 >= P99_S:
            found.append(f"p99 of the deliveries is {self.p99:.2f} s")
        for name, series in self.footprints.items():
            quarter = max(1, len(series) // 4)
            for what, column, slack in (
                ("MiB", 0, SLACK_MIB),
                ("descriptors", 1, SLACK_DESCRIPTORS),
            ):
                first = sum(each[column] for each in series[:quarter]) / quarter
                last = sum(each[column] for each in series[-quarter:]) / quarter
                if last > first * (1 + GROWTH) + slack:
                    found.append(f"{name} grew from {first:.0f} to {last:.0f} {what}")
        return found

    def __str__(self) -> str:
        median = sorted(self.acked)[len(self.acked) // 2]
        last = [series[-1] for series in self.footprints.values()]
        return (
            f"{len(self.acked)} of {self.wanted} deliveries, p50 {median:.3f} s, p99 {self.p99:.3f} s,"
            f" last {max(self.acked):.3f} s; a process has at most {max(each[0] for each in last):.0f} MiB"
            f" and {max(each[1] for each in last)} descriptors"
        )


class Crowd:
    """A context: up and linked inside."""

    def __init__(self, root: Path, nodes: int, processes: int, network: Network) -> None:
        self._root, self._network = root, network
        self.names = [f"n{number}" for number in range(nodes)]
        self._processes = processes
        self.workers: list[LabProcess] = []
        self._of: dict[str, LabProcess] = {}

    def _host(self, name: str) -> str:
        number = self.names.index(name) + 1
        return f"127.77.{number // 250}.{number % 250 + 1}"

    async def __aenter__(self) -> Crowd:
        homes = await asyncio.to_thread(make_homes, self._root, self.names)
        places = self._root / "places"
        lines = [f"{homes[name]} {name}={self._host(name)}:{PORT}" for name in self.names]
        await asyncio.to_thread(places.write_text, "\n".join(lines))
        for number in range(self._processes):
            argv = [*python("scripts.lab.many"), str(places), f"{number}/{self._processes}"]
            process = LabProcess(f"p{number}", [*self._network.before(PLACE), *argv])
            self.workers.append(process)
            self._of |= dict.fromkeys(self.names[number :: self._processes], process)
        try:
            await asyncio.gather(*(process.start() for process in self.workers))
            await self._until_linked()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(process.stop() for process in self.workers))

    async def do(self, name: str, word: str, **order: Any) -> dict[str, Any]:
        return await self._of[name].do(word, node=name, **order)

    async def _until_linked(self) -> None:
        """Nobody is alone, and there are no more connections than a while ago: how many each keeps is its own."""
        counts: list[int] = []
        async with asyncio.timeout(UP_S):
            while True:
                before = counts
                counts = [len((await self.do(name, "links"))["links"]) for name in self.names]
                if min(counts) > 0 and counts == before:
                    return
                await asyncio.sleep(QUIET_S)

    async def watch(self, seconds: float) -> Seen:
        """A red every second, of each node in turn."""
        seen = Seen()
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._measure(seen))
            reds = []
            for number in range(int(seconds)):
                name = self.names[number % len(self.names)]
                reds.append(group.create_task(self._one_red(name, seen)))
                await asyncio.sleep(max(0.0, until - seconds + number + 1 - time.monotonic()))
            await asyncio.gather(*reds)
            watching.cancel()
        return seen

    async def _one_red(self, name: str, seen: Seen) -> None:
        seen.wanted += len(self.names) - 1
        key = (await self.do(name, "red", reason="load"))["key"]
        await asyncio.sleep(CLEARED_AFTER_S)
        await self.do(name, "clear", key=key, reason="load")
        await asyncio.sleep(PATIENCE_S - CLEARED_AFTER_S)
        sent = (await self.do(name, "acks"))["broadcasts"]
        acked = next(each["acked_ms"] for each in sent if each["key"] == key)
        seen.acked += [each / 1000 for each in acked.values()]

    async def _measure(self, seen: Seen) -> None:
        while True:
            for process in self.workers:
                found = await process.do("footprint", node=self.names[self.workers.index(process)])
                series = seen.footprints.setdefault(process.name, [])
                series.append((found["rss"] / MIB, found["descriptors"]))
            await asyncio.sleep(LOOK_EVERY_S)


async def watch_crowd(root: Path, nodes: int, processes: int, seconds: float) -> Seen:
    async with Network([PLACE]) as network, Crowd(root, nodes, processes, network) as crowd:
        return await crowd.watch(seconds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.lab.crowd", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=60.0)
    return parser.parse_args()


async def run(options: argparse.Namespace) -> int:
    end_with_sigterm()
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="rollcall-crowd-"))
    try:
        seen = await watch_crowd(root, options.nodes, options.processes, options.minutes * 60)
    finally:
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)
    say(f"{options.nodes} nodes in {options.processes} processes, {options.minutes:g} min: {seen}")
    for fault in (faults := seen.faults()):
        say(f"FAULT: {fault}")
    return 1 if faults else 0


def main() -> int:
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        return asyncio.run(run(parse()))
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
