"""`rollcall rollout watch`: a rollout as it goes on, from the coordinator's stream of events.

The stream says that something has changed, and which states there were, also those of while this end was away; the
rollout itself is then asked for, and says what each node waits for and how long it will take. Where the stream cannot
be had the rollout is looked at all the same, as often as the stream is tried again.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, TextIO

from coordinator.cli.following import Complaints
from coordinator.cli.planview import eta_words, headline, progress
from coordinator.cli.stream import StreamEvent
from coordinator.saying import span
from shared.canonical import parse_json
from shared.clock import Clock, wait_at_most
from shared.errors import UnavailableError
from shared.http import RefusedError
from shared.rollout import LIVE, NodeState, Rollout, RolloutNode
from shared.table import plain

TICK_S = 1.0
GATHER_S = 0.2
"""What comes together is looked at together."""
SHORTEST_S, LONGEST_S = 0.5, 5.0
"""Pauses before the stream is tried again."""
BAR = 20
BUSY_SHOWN = 2
OUR_ROLLOUT = ""
"""Stands for the rollout itself where its nodes are named."""
MAX_ANSWER = 32 << 20


def is_over(rollout: Rollout) -> bool:
    moving = any(node.state is NodeState.MOVING for node in rollout.nodes)
    return rollout.state not in LIVE and not moving


class Screen:
    """Lines, and below them, at a terminal, one that is drawn anew each second."""

    def __init__(self, lines: TextIO, words: TextIO) -> None:
        self._lines, self._words = lines, words
        self._live = words.isatty()

    def line(self, text: str) -> None:
        self._clear()
        self._lines.write(f"{text}\n")
        self._lines.flush()

    def say(self, text: str) -> None:
        self._clear()
        self._words.write(f"{text}\n")
        self._words.flush()

    def status(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns
            self._words.write(f"\r\x1b[K{plain(text)[: width - 1]}")
            self._words.flush()

    def _clear(self) -> None:
        if self._live:
            self._words.write("\r\x1b[K")
            self._words.flush()

    def end(self) -> None:
        self._clear()


class Asks(Protocol):
    """What of the API's client is needed here."""

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes: ...

    def events(self, last: str = "") -> AsyncGenerator[StreamEvent]: ...


class Watch:
    def __init__(self, client: Asks, rollout: str, screen: Screen, clock: Clock) -> None:
        self._client, self._id, self._screen, self._clock = client, rollout, screen, clock
        self._news = asyncio.Event()
        self._complaints = Complaints(screen.say)
        self._seen: Rollout | None = None
        self._said: dict[str, tuple[str, str]] = {}
        """Of each node the state and the reason that were said last."""
        self._done = ""

    async def run(self, patience_s: float | None) -> Rollout:
        """The rollout when it is over, or as it was seen last when the time is. Raises UnavailableError where it was
        never seen, and RefusedError for who may not see it."""
        ends = None if patience_s is None else self._clock.monotonic() + patience_s
        reading = asyncio.create_task(self._read())
        try:
            while self._seen is None or not is_over(self._seen):
                if reading.done():
                    reading.result()
                if ends is not None and self._clock.monotonic() >= ends:
                    break
                await wait_at_most(self._news, TICK_S)
                if self._news.is_set():
                    await self._clock.sleep(GATHER_S)
                    await self._look()
                if self._seen is not None:
                    self._screen.status(status_line(self._seen, self._clock.now()))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._screen.end()
        if self._seen is None:
            raise UnavailableError(f"rollout {self._id} could not be looked at in that time")
        return self._seen

    async def _read(self) -> None:
        last, pause = "", SHORTEST_S
        while True:
            try:
                async with aclosing(self._client.events(last)) as coming:
                    async for event in coming:
                        last, pause = event.id or last, SHORTEST_S
                        self._complaints.answer()
                        self._hear(event)
            except UnavailableError as error:
                self._complaints.silence(error)
            except RefusedError as error:
                if error.status in (401, 403):
                    raise
                last = "" if error.status == 400 else last
                self._complaints.silence(error)
            self._news.set()
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_S)

    def _hear(self, event: StreamEvent) -> None:
        if event.kind == "reset":
            self._screen.say("more has happened than the coordinator remembers; looking anew")
        elif event.kind != "hello" and event.body.get("rollout") != self._id:
            return
        if event.kind == "rollout.node":
            self._tell_state(event)
        self._news.set()

    def _tell_state(self, event: StreamEvent) -> None:
        """In the order in which it happened, with the time at which it did."""
        body = event.body
        name, at = str(body.get("node") or OUR_ROLLOUT), body.get("at")
        node = None if self._seen is None else self._seen.find(name)
        if isinstance(at, int | float) and (node is not None or name == OUR_ROLLOUT):
            self._tell(node, str(body.get("state")), str(body.get("reason")), float(at))

    async def _look(self) -> None:
        self._news.clear()
        try:
            raw = await self._client.ask("GET", f"/v1/rollouts/{self._id}")
        except UnavailableError as error:
            self._complaints.silence(error)
            return
        rollout = Rollout.from_value(parse_json(raw, max_bytes=MAX_ANSWER))
        self._seen, now = rollout, self._clock.now()
        if self._done != progress(rollout):
            self._done = progress(rollout)
            self._screen.say(headline(rollout, now)[0])
        self._tell(None, rollout.state, rollout.reason, now)
        for node in rollout.nodes:
            self._tell(node, node.state, node.reason, now)

    def _tell(self, node: RolloutNode | None, state: str, reason: str, at: float) -> None:
        name = OUR_ROLLOUT if node is None else node.name
        if self._said.get(name) == (state, reason):
            return
        self._said[name] = (state, reason)
        clock = time.strftime("%H:%M:%SZ", time.gmtime(at))
        where = (
            f"rollout {self._id}"
            if node is None
            else f"wave {node.wave + 1}  {node.name:12} {node.role:8}"
        )
        self._screen.line(f"{clock}  {where} {state:12} {plain(reason)}".rstrip())


def status_line(rollout: Rollout, now: float) -> str:
    """How far it is, how long it will take, and what moves."""
    ended = sum(node.state is NodeState.DONE for node in rollout.nodes)
    filled = BAR * ended // max(1, len(rollout.nodes))
    busy = [
        f"{node.name} {span(now - node.since)} {node.phase or node.state}"
        for node in rollout.nodes
        if node.state in (NodeState.MOVING, NodeState.PENDING)
    ]
    words = [f"{rollout.state}, {progress(rollout)}{eta_words(rollout, now)}", *busy[:BUSY_SHOWN]]
    return f"[{'#' * filled}{'.' * (BAR - filled)}] {'; '.join(words)}"
