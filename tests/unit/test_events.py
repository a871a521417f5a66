"""Server-sent events of a real coordinator: live, resumed, reset, and dropped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from coordinator.api import events
from coordinator.store.events import Position
from shared.errors import BadInputError
from shared.http import session
from shared.roster import COORDINATOR_HOST
from shared.tls import unverified_context
from tests.support.coordinatorkit import Running
from tests.support.rolloutkit import play, players

ROWS, WORDS = 8000, "y" * 2000


@dataclass
class Event:
    id: str
    kind: str
    body: Any


class Stream:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.comments = 0

    async def next(self) -> Event:
        """The next event; comments are counted. Raises EOFError at the end."""
        found: dict[str, str] = {}
        while line := (await self._answer.content.readline()).decode():
            name, _, value = line.strip().partition(":")
            if line == "\n" and "event" in found:
                return Event(found["id"], found["event"], json.loads(found["data"]))
            self.comments += line.startswith(":")
            found[name] = value.strip()
        raise EOFError

    async def rest(self) -> list[Event]:
        found = []
        try:
            while True:
                found.append(await self.next())
        except EOFError:
            return found


@asynccontextmanager
async def stream(
    running: Running, last: str | None = None, *, wait_s: int = 30, token: str | None = None
) -> AsyncIterator[Stream]:
    text = token or running.settings.paths.token.read_text()
    headers = {"Authorization": f"Bearer {text}"} | ({"Last-Event-ID": last} if last else {})
    async with (
        session(context=unverified_context(), headers=headers) as client,
        client.get(
            f"{running.url}/v1/events?wait_s={wait_s}",
            server_hostname=COORDINATOR_HOST,
            timeout=aiohttp.ClientTimeout(total=60),
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


async def test_a_viewer_sees_a_rollout_and_an_alert_as_they_happen(running: Running) -> None:
    release = await running.publish()
    nodes = await players(running, "a", "b")
    token = (await running.operator("viewer"))["token"]
    async with stream(running, token=token) as live:
        hello = await live.next()
        assert hello.kind == "hello"
        playing = asyncio.create_task(play(running, nodes, release))
        seen: list[Event] = []
        while [each.body["state"] for each in seen].count("done") < 2:
            seen.append(await live.next())
        rollout = (await playing)["id"]
        assert {each.body["rollout"] for each in seen} == {rollout}
        states = [each.body["state"] for each in seen if each.body["node"] == "a"]
        assert states[-2:] == ["moving", "done"]
        await nodes[0].says(nodes[0].red())
        while (alert := await live.next()).kind != "alert":
            seen.append(alert)
        assert alert.body["change"] == "firing"
    async with stream(running, hello.id, wait_s=1) as again:
        assert [each.id for each in await again.rest()] == [*(each.id for each in seen), alert.id]
    async with stream(running, seen[2].id, wait_s=1) as half:
        assert [each.id for each in await half.rest()] == [*(e.id for e in seen[3:]), alert.id]


async def test_a_stream_goes_on_after_a_restart_of_the_coordinator(running: Running) -> None:
    (node,) = await players(running, "a")
    async with stream(running) as before:
        hello = await before.next()
        await node.says(node.red())
        await before.next()
        stopping = asyncio.get_running_loop().time()
        await running.restart()
        assert asyncio.get_running_loop().time() - stopping < 15, "a stream holds up no stop"
    async with stream(running, hello.id, wait_s=1) as after:
        assert [each.kind for each in await after.rest()] == ["alert"]


async def test_who_comes_from_another_time_is_told_to_look_anew(running: Running) -> None:
    """The database was put back from yesterday: what was said since is not what happened."""
    async with stream(running, "99.99", wait_s=0) as other:
        (reset,) = await other.rest()
    assert (reset.kind, reset.id) == ("reset", "0.0")


async def test_an_id_that_is_none_is_refused(running: Running) -> None:
    token = running.settings.paths.token.read_text()
    for text in ("1", "1.2.3", "a.b", "-1.0", "1" * 16 + ".0"):
        with pytest.raises(BadInputError):
            Position.parse(text)
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": "x"}
    async with (
        session(context=unverified_context(), headers=headers) as client,
        client.get(f"{running.url}/v1/events", server_hostname=COORDINATOR_HOST) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["code"] == "bad-input"


async def test_there_are_only_so_many_streams(running: Running) -> None:
    async with _many(running, events.MAX_STREAMS) as connections:
        refused = await running.reply(
            "GET", "/v1/events", token=running.settings.paths.token.read_text()
        )
        assert (refused.status, refused.body["code"]) == (503, "unavailable")
        assert len(connections) == events.MAX_STREAMS
        assert (await running.get("/v1/alerts"))["alerts"] == [], "others are served"


@asynccontextmanager
async def _many(running: Running, number: int) -> AsyncIterator[list[Any]]:
    """Streams that are open and of which nobody reads more than the beginning."""
    token = running.settings.paths.token.read_text()
    request = (
        f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    context = unverified_context()
    connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(number):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", running.settings.port, ssl=context, server_hostname=COORDINATOR_HOST
            )
            connections.append((reader, writer))
            writer.write(request)
            assert b"200" in await reader.readline()
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def test_a_reader_that_takes_nothing_is_dropped(running: Running) -> None:
    """Its buffers are full of events; the stream is closed for it, and the others go on."""
    release = await running.publish()
    nodes = await players(running, "a", "b")
    await play(running, nodes, release)
    await asyncio.to_thread(fill, running)
    got = await asyncio.to_thread(read_nothing, running)
    assert got < ROWS * len(WORDS), "the coordinator has closed it in the middle"
    async with stream(running, wait_s=0) as other:
        assert [each.kind for each in await other.rest()] == ["hello"]


def fill(running: Running) -> None:
    """The history of a rollout with many words, as if by many nodes."""
    with sqlite3.connect(running.settings.paths.database) as db:
        db.executemany(
            "insert into history (at, rollout, node, state, reason) values (1, 'x', 'a', 'moving', ?)",
            [(WORDS,)] * ROWS,
        )
    db.close()


def read_nothing(running: Running) -> int:
    """With the smallest buffer that there is; after a while, what there is yet. How many bytes that was at the end.
    Raises TimeoutError when the stream goes on."""
    token = running.settings.paths.token.read_text()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(60)
    raw.connect(("127.0.0.1", running.settings.port))
    with unverified_context().wrap_socket(raw, server_hostname=COORDINATOR_HOST) as secure:
        secure.sendall(
            f"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1.0\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        secure.recv(100)
        time.sleep(events.WRITE_S + 3)
        got, ends = 0, time.monotonic() + 30
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while chunk := secure.recv(1 << 16):
                got += len(chunk)
                if time.monotonic() > ends:
                    raise TimeoutError("the stream goes on")
    return got
