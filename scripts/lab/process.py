"""A node of `node.py` as a process, from outside: its events, and orders to it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.lab.child import Child
from shared.errors import CommandError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 30.0
UP_S = 120.0
"""Many are started at the same time, on few cores."""


def python(module: str) -> list[str]:
    """Words that run a module of this tree; PYTHONPATH has to name ROOT."""
    return [sys.executable, "-m", module]


class LabProcess(Child):
    """Takes orders and tells events as `scripts.lab.node` does, whatever it runs."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name, self._argv = name, argv
        self.events: list[dict[str, Any]] = []
        self._began = 0
        self._news = asyncio.Condition()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._ordering = asyncio.Lock()

    async def start(self) -> None:
        """Again, too, after it was stopped; what it told before stays in `events`."""
        self._began = len(self.events)
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            limit=1 << 20,
        )
        self._reading = asyncio.create_task(self._read(), name=f"read-{self.name}")
        await self.until(
            lambda event: event["event"] == "up", "it is up", after=self._began, timeout_s=UP_S
        )

    async def _read(self) -> None:
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            said = json.loads(line)
            if "event" not in said:
                self._answers.put_nowait(said)
                continue
            async with self._news:
                self.events.append(said)
                self._news.notify_all()

    async def until(
        self,
        good: Callable[[dict[str, Any]], bool],
        what: str,
        *,
        after: int = 0,
        timeout_s: float = ANSWER_S,
    ) -> dict[str, Any]:
        """The first event that is good, of those from number `after` on. Raises UnavailableError."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                seen = after
                while True:
                    for event in self.events[seen:]:
                        if good(event):
                            return event
                    seen = max(seen, len(self.events))
                    await self._news.wait()
        except TimeoutError:
            raise UnavailableError(f"{self.name}: not within {timeout_s:g} s: {what}") from None

    async def do(self, word: str, **order: Any) -> dict[str, Any]:
        """Raises CommandError for what it refuses, UnavailableError when it does not answer."""
        if self._process.stdin is None:
            raise UnavailableError(f"{self.name} takes no orders")
        line = json.dumps({"do": word, **order}).encode() + b"\n"
        try:
            async with self._ordering, asyncio.timeout(ANSWER_S):
                self._process.stdin.write(line)
                await self._process.stdin.drain()
                answer = await self._answers.get()
        except (TimeoutError, ConnectionError):
            raise UnavailableError(f"{self.name} does not answer to {word}") from None
        if "failed" in answer:
            raise CommandError(f"{self.name}: {word}: {answer['reason']}")
        return answer


class NodeProcess(LabProcess):
    """One node. `before` stands before the program's own words, such as `ip netns exec NAME`."""

    def __init__(
        self,
        home: Path,
        host: str,
        port: int,
        peers: Mapping[str, tuple[str, int]],
        *,
        before: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> None:
        self.host, self.port = host, port
        known = [f"--peer={name}={there}:{number}" for name, (there, number) in peers.items()]
        program = [*before, *python("scripts.lab.node"), str(home)]
        super().__init__(home.name, [*program, f"--host={host}", f"--port={port}", *known, *words])

    def linked(self) -> set[str]:
        """With whom it has a kept connection, as it told last."""
        last = {
            each["peer"]: each["up"]
            for each in self.events[self._began :]
            if each["event"] == "link"
        }
        return {peer for peer, up in last.items() if up}

    async def until_linked(self, names: Sequence[str], timeout_s: float = ANSWER_S) -> None:
        wanted = set(names) - {self.name}
        await self.until(lambda _: wanted <= self.linked(), "linked with all", timeout_s=timeout_s)
