"""What heartbeats cost the coordinator, and what waiting agents do.

- `rate_vs_bare`: heartbeats for each second of CPU that the whole process takes, which is what one core can do, of
  `POST /v1/sync` with whole reports of NODES nodes, durable before each answer, over kept connections with mutual
  TLS; beside an aiohttp handler that reads the same requests on the same kind of connections and answers with as many
  constant bytes. Both in turns. Higher is better. A report is another at each fifth heartbeat, as an idle agent's is.
- `mib_at_1000`, `mib_at_5000`: the most that the coordinator's resident set is while so many agents of a fleet of that
  size hold their long polls, and answers to some of them run out and are asked for anew. Beside a budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from coordinator.home import HomePaths, KeyRing
from scripts.benchmarks.beats import AUTHORITY
from scripts.benchmarks.crowding import (
    as_http,
    make_home,
    make_identities,
    names,
    report_of,
    roster_number,
    write_requests,
)
from scripts.benchmarks.frame import Options, Sample
from scripts.minifleet.ports import free_port
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.report import SyncAnswer, SyncRequest
from shared.roster import COORDINATOR_HOST
from shared.terminal import say
from shared.tls import TlsFiles, client_context

ROOT = Path(__file__).resolve().parents[2]
NODES = 256
TURNS, TURN_S = 6, 2.0
WARM_UP_S = 1.0
SIZES = (1000, 5000)
BUDGET_MIB = 400.0
WAIT_S = 25.0
"""The longest that the coordinator lets a poll wait."""
HOLD_S = 40.0
LOOK_S = 0.5
PER_PROCESS = 1250
UP_S = 600.0
MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """How much is measured; a test takes little."""

    nodes: int = NODES
    turns: int = TURNS
    turn_s: float = TURN_S
    waiting: tuple[int, ...] = SIZES
    hold_s: float = HOLD_S


async def run(options: Options) -> list[Sample]:
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}")
        samples += await run_round(Sizes())
    return samples


async def run_round(sizes: Sizes) -> list[Sample]:
    samples = [await measure_rate(sizes)]
    for count in sizes.waiting:
        samples.append(await measure_memory(count, sizes.hold_s))
    return samples


class Child:
    """A program of ours that writes lines of JSON and may take orders."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen = psutil.Process(process.pid)

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, argv: Sequence[str], workspace: Workspace) -> AsyncIterator[Child]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            cwd=ROOT,
            env={**workspace.environment(), "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def told(self) -> Any:
        """The next line. Raises RollcallError when none comes."""
        if self._process.stdout is None:
            raise TypeError("its output goes elsewhere")
        async with asyncio.timeout(UP_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RollcallError("a process of the bench ended; its words stand above")
        return json.loads(line)

    async def order(self, text: str) -> dict[str, float]:
        if self._process.stdin is None:
            raise TypeError("it takes no orders")
        self._process.stdin.write(f"{text}\n".encode())
        await self._process.stdin.drain()
        return dict(await self.told())

    def cpu_s(self) -> float:
        times = self.seen.cpu_times()
        return times.user + times.system


@dataclass(frozen=True)
class Stand:
    """A coordinator that runs, the nodes that are to speak with it, and what such a node hears."""

    workspace: Workspace
    ring: KeyRing
    coordinator: Child
    port: int
    folders: list[Path]
    answer_bytes: int


@contextlib.asynccontextmanager
async def standing(count: int, wait_s: float) -> AsyncIterator[Stand]:
    """With as many folders of nodes as there shall be processes of them."""
    workspace = Workspace()
    try:
        paths, port = HomePaths(workspace.root / "coordinator"), free_port()
        ring = await make_home(paths, count)
        argv = ["-m", "coordinator", "coordinator", "serve", "--home", str(paths.root)]
        argv += ["--listen", f"127.0.0.1:{port}"]
        async with Child.start(argv, workspace) as coordinator:
            await until_listening(port)
            folders = await asyncio.to_thread(_identities, workspace.root, ring, count)
            scout = folders[0] / f"{names(1)[0]}.pem"
            asked = SyncRequest(
                report=report_of(names(1)[0], 0), addresses="", orders="", traffic=""
            )
            first, _ = await _ask(port, scout, asked)
            number = roster_number(ring, first.roster or "")
            for folder in folders:
                wanted = [each.stem for each in folder.glob("*.pem")]
                await asyncio.to_thread(write_requests, folder, wanted, first, number, wait_s)
            size = await _usual_answer(port, scout)
            yield Stand(workspace, ring, coordinator, port, folders, size)
    finally:
        await asyncio.to_thread(workspace.remove)


async def until_listening(port: int) -> None:
    async with asyncio.timeout(UP_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


def _identities(root: Path, ring: KeyRing, count: int) -> list[Path]:
    wanted, folders = names(count), []
    for begin in range(0, count, PER_PROCESS):
        folder = root / f"nodes-{begin}"
        make_identities(folder, ring.current.authority, wanted[begin : begin + PER_PROCESS])
        folders.append(folder)
    return folders


async def _usual_answer(port: int, identity: Path) -> int:
    """Bytes of the body that a node gets for which there is no news."""
    text = json.loads(identity.with_suffix(".requests").read_text())[0]
    asked = SyncRequest.from_bytes(text.partition("\r\n\r\n")[2].encode())
    _, size = await _ask(port, identity, asked.model_copy(update={"wait_s": 0.0}))
    return size


async def _ask(port: int, identity: Path, request: SyncRequest) -> tuple[SyncAnswer, int]:
    files = TlsFiles(identity, identity.with_name(AUTHORITY))
    context = await asyncio.to_thread(client_context, files.ca, files)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=COORDINATOR_HOST, limit=16 << 20
    )
    try:
        writer.write(as_http(request).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.split(b"\r\n")]
        length = next(int(value) for name, _, value in lines if name.lower() == b"content-length")
        body = await reader.readexactly(length)
    finally:
        writer.close()
    return SyncAnswer.from_bytes(body, max_bytes=16 << 20), length


async def measure_rate(sizes: Sizes) -> Sample:
    async with standing(sizes.nodes, 0) as stand:
        tls = TlsFiles(
            stand.workspace.root / "coordinator" / "tls.pem",
            stand.workspace.root / "coordinator" / "authorities.pem",
        )
        bare = ["-m", "scripts.benchmarks.barebeat", str(tls.identity), str(tls.ca)]
        async with Child.start([*bare, str(stand.answer_bytes)], stand.workspace) as rival:
            rival_port = int(await rival.told())
            async with (
                _nodes(stand, stand.port) as ours,
                _nodes(stand, rival_port) as theirs,
            ):
                return await _in_turns(sizes, (stand.coordinator, ours), (rival, theirs))


@contextlib.asynccontextmanager
async def _nodes(stand: Stand, port: int) -> AsyncIterator[Child]:
    """All of one folder, connected."""
    argv = ["-m", "scripts.benchmarks.beats", str(port), str(stand.folders[0]), COORDINATOR_HOST]
    async with Child.start(argv, stand.workspace) as beats:
        await beats.told()
        yield beats


@dataclass
class Spent:
    """What one side took for so many heartbeats."""

    cpu_s: float = 0.0
    seconds: float = 0.0
    beats: float = 0.0

    def rate(self) -> float:
        return self.beats / self.cpu_s

    def document(self) -> dict[str, float]:
        return {
            "beats": self.beats,
            "cpu_us_per_beat": round(1e6 * self.cpu_s / self.beats, 1),
            "beats_per_second_seen": round(self.beats / self.seconds, 1),
        }


async def _in_turns(sizes: Sizes, ours: tuple[Child, Child], bare: tuple[Child, Child]) -> Sample:
    spent = {ours: Spent(), bare: Spent()}
    for _, beats in (ours, bare):
        await beats.order(f"run {WARM_UP_S}")
    for turn in range(sizes.turns):
        for side in (ours, bare) if turn % 2 else (bare, ours):
            server, beats = side
            before = server.cpu_s()
            seen = await beats.order(f"run {sizes.turn_s}")
            spent[side].cpu_s += server.cpu_s() - before
            spent[side].beats += seen["answers"]
            spent[side].seconds += seen["seconds"]
    detail = {"ours": spent[ours].document(), "bare": spent[bare].document()}
    mine, floor = spent[ours].rate(), spent[bare].rate()
    say(f"  {mine:.0f} heartbeats for a second of CPU, bare {floor:.0f}: {detail}")
    return Sample("rate_vs_bare", mine, floor, "/s of CPU", detail)


async def measure_memory(count: int, hold_s: float) -> Sample:
    async with standing(count, WAIT_S) as stand, contextlib.AsyncExitStack() as stack:
        before = _resident(stand.coordinator)
        began = time.monotonic()
        starting = [stack.enter_async_context(_nodes_of(stand, folder)) for folder in stand.folders]
        crowds = await asyncio.gather(*starting)
        connected = time.monotonic() - began
        idle = _resident(stand.coordinator)
        spent = stand.coordinator.cpu_s()
        running = [asyncio.create_task(crowd.order(f"run {hold_s}")) for crowd in crowds]
        most = idle
        while not all(task.done() for task in running):
            most = max(most, _resident(stand.coordinator))
            await asyncio.sleep(LOOK_S)
        answers = sum(task.result()["answers"] for task in running)
        if answers < count:
            raise RollcallError(f"{count} agents waited, and there were {answers:.0f} answers")
        detail = {
            "alone_mib": round(before, 1),
            "connected_mib": round(idle, 1),
            "connecting_s": round(connected, 1),
            "answers": answers,
            "cpu_s": round(stand.coordinator.cpu_s() - spent, 2),
            "kib_per_agent": round(1024 * (most - before) / count, 1),
        }
    say(f"  {count} waiting: {most:.0f} MiB of {BUDGET_MIB:.0f}: {detail}")
    return Sample(f"mib_at_{count}", most, BUDGET_MIB, "MiB", detail)


@contextlib.asynccontextmanager
async def _nodes_of(stand: Stand, folder: Path) -> AsyncIterator[Child]:
    argv = ["-m", "scripts.benchmarks.beats", str(stand.port), str(folder), COORDINATOR_HOST]
    argv.append("hold")
    async with Child.start(argv, stand.workspace) as beats:
        await beats.told()
        yield beats


def _resident(child: Child) -> float:
    """MiB."""
    return float(child.seen.memory_info().rss) / MIB
