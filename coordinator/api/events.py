"""`/v1/events`: what happens to rollouts and alerts, as server-sent events (HTML, 9.2) that go on where the reader was.

With `progress` also, without a place of its own, that the newest rollout was written anew: what its nodes wait for.
Every other event has the id of its place. Who comes back with it as Last-Event-ID misses nothing that is still kept;
who was away for longer, or has an id of a database that is no more, gets a `reset` and looks at the whole anew.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Media, Number, Resource, Route
from coordinator.notifier import Notifier
from coordinator.store.events import EventLog, Position, RolloutAt
from shared.clock import Clock
from shared.errors import UnavailableError

STREAM = Media("text/event-stream")
HEADER = "Last-Event-ID"
LONGEST_S = 900
"""A stream ends after so long, and its reader comes back: with a token that counts then."""
HEARTBEAT_S = 15.0
WRITE_S = 10.0
"""A reader that takes nothing for so long is dropped; what it missed is here when it comes back."""
PAUSE_S = 0.25
"""Between two looks, however much happens."""
MAX_STREAMS = 64
PAGE = 200
RETRY_MS = 2000
FLEET = "fleet"
"""The kind of event that only says that the fleet is another. It has no place of its own: who was away looks anyway."""
BUFFER = 64 << 10


@dataclass
class Pulse:
    """When a reader who wants to look at the fleet anew is told to: at once, then with every piece of news, but no
    oftener than each `every_s`; and now and then without any, for what changes by itself. 0 is never."""

    every_s: float
    news: int = -1
    at: float = -math.inf

    def beats(self, news: int, now: float) -> bool:
        """Whether now is the time; it is then over."""
        if not self.every_s or self.left(news, now) > 0:
            return False
        self.news, self.at = news, now
        return True

    def left(self, news: int, now: float) -> float:
        """Seconds."""
        if not self.every_s:
            return math.inf
        return max(0.0, self.at + (HEARTBEAT_S if news == self.news else self.every_s) - now)


@dataclass(frozen=True)
class _End:
    position: Position
    newest: RolloutAt | None


class EventsApi(Resource):
    def __init__(self, log: EventLog, notifier: Notifier, clock: Clock) -> None:
        self._log, self._notifier, self._clock = log, notifier, clock
        self._open = 0
        self._seen: tuple[int, _End] = (-1, _End(Position(), None))
        """For which generation the end of the log was asked last: one question serves all streams."""

    async def stream(self, call: Call) -> web.StreamResponse:
        """Raises UnavailableError while there are as many streams as there may be, BadInputError for an id that is
        none."""
        request = call.must_request()
        asked = request.headers.get(HEADER)
        position = None if asked is None else Position.parse(asked)
        if self._open >= MAX_STREAMS:
            raise UnavailableError(
                f"{MAX_STREAMS} streams of events are open", remedy="close some, or try again later"
            )
        self._open += 1
        try:
            return await self._serve(request, position, call.query)
        finally:
            self._open -= 1

    async def _serve(
        self, request: web.Request, position: Position | None, terms: Mapping[str, int]
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": STREAM.type})
        await answer.prepare(request)
        transport = request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=BUFFER)
        try:
            await self._write(answer, f"retry: {RETRY_MS}\n\n")
            position = await self._begin(answer, position)
            ends = self._clock.monotonic() + terms["wait_s"]
            pulse = Pulse(terms["fleet_ms"] / 1000)
            await self._follow(answer, position, ends, pulse, progress=bool(terms["progress"]))
            await answer.write_eof()
        except (TimeoutError, ConnectionError):
            if transport is not None:
                transport.abort()
        return answer

    async def _begin(self, answer: web.StreamResponse, position: Position | None) -> Position:
        """Who names no place begins at the end, and learns where that is."""
        first, last = await self._log.bounds()
        if position is not None:
            kept = first.rollouts <= position.rollouts and first.alerts <= position.alerts
            ours = position.rollouts <= last.rollouts and position.alerts <= last.alerts
            if kept and ours:
                return position
        kind = "hello" if position is None else "reset"
        await self._write(answer, _event(last, kind, "{}"))
        return last

    async def _follow(
        self,
        answer: web.StreamResponse,
        position: Position,
        ends: float,
        pulse: Pulse,
        *,
        progress: bool,
    ) -> None:
        spoke, told = self._clock.monotonic(), None
        while True:
            now, generation = self._clock.monotonic(), self._notifier.generation
            end = await self._end(generation)
            if end.position != position:
                before, position = position, await self._write_after(answer, position)
                spoke = now
                if position != before:
                    continue
            if progress and end.newest not in (None, told):
                await self._write(answer, _progress(end.newest))
                told, spoke = end.newest, now
            if now - spoke >= HEARTBEAT_S:
                await self._write(answer, ": still here\n\n")
                spoke = now
            if pulse.beats(self._notifier.news, now):
                await self._write(answer, f"event: {FLEET}\ndata: {self._notifier.news}\n\n")
            left = min(ends - now, pulse.left(self._notifier.news, now))
            if ends <= now:
                return
            await self._notifier.wait_beyond(generation, min(HEARTBEAT_S, left))
            await asyncio.sleep(min(PAUSE_S, max(0.0, ends - now)))

    async def _write_after(self, answer: web.StreamResponse, position: Position) -> Position:
        """The next events. Returns the place of the last one."""
        for each in await self._log.after(position, PAGE):
            text = json.dumps(each.body, separators=(",", ":"))
            await self._write(answer, _event(each.position, each.kind, text))
            position = each.position
        return position

    async def _end(self, generation: int) -> _End:
        """Of the log, as of this generation or later."""
        if self._seen[0] < generation:
            _, last = await self._log.bounds()
            found = generation, _End(last, await self._log.newest())
            self._seen = max(self._seen, found, key=lambda each: each[0])
        return self._seen[1]

    async def _write(self, answer: web.StreamResponse, text: str) -> None:
        """Raises TimeoutError for a reader that does not take it."""
        async with asyncio.timeout(WRITE_S):
            await answer.write(text.encode())

    routes = (
        Route(
            "GET",
            "/v1/events",
            stream,
            Allows.VIEWER,
            "Changes of rollouts and alerts as they happen; goes on after Last-Event-ID.",
            answer=STREAM,
            refusals=(400, 503),
            query=(
                Number("wait_s", LONGEST_S, LONGEST_S, "End after so many seconds."),
                Number("progress", 0, 1, "1: also tell when the newest rollout was written anew."),
                Number(
                    "fleet_ms",
                    0,
                    60_000,
                    "Also say that the fleet changed, at most so often; 0 never.",
                ),
            ),
        ),
    )


def _progress(newest: RolloutAt | None) -> str:
    """Without an id: who comes back later goes on after the last event that has one."""
    return f"event: rollout.progress\ndata: {json.dumps(vars(newest), separators=(',', ':'))}\n\n"


def _event(position: Position, kind: str, data: str) -> str:
    return f"id: {position}\nevent: {kind}\ndata: {data}\n\n"
