"""How long an agent takes to hand out its readiness document, beside the least that its HTTP library takes.

- `p50_vs_bare`: the median time from a request's first byte to the last byte of its answer, of
  `GET /v1/readiness` at a real agent that keeps a gateway (the stand-in), beside a process of its own in which
  aiohttp answers with constant bytes of the same length. One kept connection to each, asked in turns of some
  requests, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from scripts.benchmarks.frame import Options, Sample
from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.roster import Role
from shared.terminal import say

VERSION = "2026.7.35"
FIGURE = "p50_vs_bare"
ROOT = Path(__file__).resolve().parents[2]
TURNS, IN_A_TURN = 60, 25
WARM_UP = 200
LIMIT_S = 10.0
MAX_ANSWER = 1 << 20


class Asker:
    """One kept connection; every answer must be a 200 with its length said."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

    def ask(self) -> tuple[float, bytes]:
        """Seconds and body. Raises RollcallError for any other answer."""
        began = time.perf_counter()
        self._socket.sendall(self._request)
        raw = self._socket.recv(1 << 16)
        head, found, body = raw.partition(b"\r\n\r\n")
        if not found or not head.startswith(b"HTTP/1.1 200 "):
            raise RollcallError(f"not the answer that was expected: {raw[:80]!r}")
        length = content_length(head)
        while len(body) < length:
            more = self._socket.recv(1 << 16)
            if not more:
                raise RollcallError("an answer ended before its end")
            body += more
        return time.perf_counter() - began, body

    def close(self) -> None:
        self._socket.close()


def content_length(head: bytes) -> int:
    """Raises RollcallError where a head does not say, or says too much."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and 0 <= int(value) <= MAX_ANSWER:
            return int(value)
    raise RollcallError("an answer without a length")


def measure(ours: Asker, bare: Asker) -> tuple[float, float]:
    """Medians in milliseconds."""
    took: dict[Asker, list[float]] = {ours: [], bare: []}
    for number in range(TURNS):
        for asker in (ours, bare) if number % 2 else (bare, ours):
            took[asker] += [asker.ask()[0] for _ in range(IN_A_TURN)]
    mine, floor = (1000 * statistics.median(took[asker]) for asker in (ours, bare))
    return mine, floor


async def run(options: Options) -> list[Sample]:
    async with _agent() as port:
        ours = await asyncio.to_thread(Asker, port, "/v1/readiness")
        size = len((await asyncio.to_thread(ours.ask))[1])
        say(f"the document has {size} bytes")
        async with _bare(size) as bare_port:
            bare = await asyncio.to_thread(Asker, bare_port, "/")
            try:
                return await asyncio.to_thread(_rounds, ours, bare, options.rounds)
            finally:
                ours.close()
                bare.close()


def _rounds(ours: Asker, bare: Asker, rounds: int) -> list[Sample]:
    for _ in range(WARM_UP):
        ours.ask()
        bare.ask()
    samples = []
    for number in range(1, rounds + 1):
        mine, floor = measure(ours, bare)
        say(f"round {number} of {rounds}: {mine:.3f} ms, bare {floor:.3f} ms")
        samples.append(Sample(FIGURE, mine, floor, "ms"))
    return samples


@contextlib.asynccontextmanager
async def _agent() -> AsyncIterator[int]:
    """A node that is green and runs on; the port of its readiness."""
    fleet = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False, roles=(Role.CANARY,))
    try:
        say("starting a coordinator and an agent with the stand-in for OpenClaw")
        await fleet.open()
        release = await fleet.freeze(VERSION)
        await fleet.until_found()
        target = await fleet.set_target(release, strategy="immediate", soak_s=0)
        view = await fleet.until_ended(target)
        if view.rollout is None or view.rollout.state != "succeeded":
            raise RollcallError(f"{VERSION} could not be installed")
        yield fleet.nodes[0].api_port
    finally:
        await fleet.close()


@contextlib.asynccontextmanager
async def _bare(size: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scripts.benchmarks.bare",
        str(size),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is None:
            raise RollcallError("no output of the bare handler")
        yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()
