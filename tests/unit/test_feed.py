"""What an operator's own tools hear: each red once, each end once, by numbers that last."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient

from agent import schema
from agent.cli.reds import _words
from agent.feed import MAX_CONSUMERS, EndedBy, Event, Feed, Inbox, Page, RedEvent
from agent.following import follow
from agent.layout import Layout
from agent.reds_api import _write, add_reds, render
from agent.store import Store
from shared.clock import SystemClock
from shared.http import application
from shared.messages import Clear, Message, Payload, Red, RedKind, sign_message
from tests.support.trustkit import TestFleet, make_fleet

Client = TestClient[web.Request, web.Application]
Clients = Callable[[web.Application], Awaitable[Client]]


class World:
    """A node's database that hears of a peer's reds, and what reads it."""

    def __init__(self, fleet: TestFleet, store: Store) -> None:
        self.fleet, self.store, self.sequence = fleet, store, 0
        self.inbox = Inbox(store, "b")
        self.feed = Feed(self.inbox, SystemClock())

    def message(self, body: Red | Clear, origin: str = "a") -> Message:
        self.sequence += 1
        payload = Payload(
            fleet=self.fleet.document.fleet,
            origin=origin,
            epoch=1,
            sequence=self.sequence,
            issued=5.0,
            body=body,
        )
        return sign_message(payload, self.fleet.keys[origin])

    async def keep(self, message: Message) -> Message:
        await self.store.add(message, 7.0, [])
        self.feed.changed()
        return message

    async def red(self, reason: str = "gateway: down") -> Message:
        return await self.keep(self.message(Red(kind=RedKind.READINESS, reason=reason)))

    async def end(self, red: Message, reason: str = "over") -> Message:
        return await self.keep(self.message(Clear(ref=red.key, reason=reason)))

    async def told(self, after: int = 0) -> list[tuple[str, str]]:
        return [(event.event, event.key) for event in await self.inbox.after(after)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    fleet = await asyncio.to_thread(make_fleet, tmp_path)
    store = await Store.open(tmp_path / "agent.db")
    made = World(fleet, store)
    yield made
    await made.store.close()


async def test_each_red_and_each_end_is_noted_once_whatever_comes_again(world: World) -> None:
    red = await world.red()
    ended = await world.end(red)
    for again in (red, ended, red):
        await world.keep(again)
    await world.end(red, "said once more")
    events = await world.inbox.after(0)
    assert [(each.event, each.reason, each.by) for each in events] == [
        (Event.RED, "gateway: down", None),
        (Event.CLEAR, "over", EndedBy.ORIGIN),
    ]
    first = events[0]
    assert (first.origin, first.own, first.kind, first.issued, first.at) == (
        "a",
        False,
        "readiness",
        5.0,
        7.0,
    )


async def test_an_end_that_came_before_its_red_is_told_after_it(world: World) -> None:
    red = world.message(Red(kind=RedKind.STUCK, reason="x"))
    await world.end(red)
    assert await world.told() == []
    await world.keep(red)
    assert await world.told() == [("red", red.key), ("clear", red.key)]
    assert (await world.inbox.listing()).reds == []


async def test_a_clear_under_another_key_ends_nothing(world: World) -> None:
    red = await world.red()
    await world.keep(world.message(Clear(ref=red.key, reason="not mine"), origin="c"))
    assert await world.told() == [("red", red.key)]


async def test_what_is_dismissed_here_is_told_as_such(world: World) -> None:
    red = await world.red()
    await world.store.dismiss(red.key, "its node is gone", 9.0)
    last = (await world.inbox.after(0))[-1]
    assert (last.event, last.by, last.reason) == (Event.CLEAR, EndedBy.HERE, "its node is gone")


async def test_numbers_go_on_after_the_database_was_lost(world: World, tmp_path: Path) -> None:
    await world.store.next_epoch(1.8e9)
    await world.red()
    before = await world.inbox.last()
    await world.store.close()
    await asyncio.to_thread((tmp_path / "agent.db").unlink)
    world.store = await Store.open(tmp_path / "agent.db")
    await world.store.next_epoch(1.8e9 + 60)
    world.inbox = Inbox(world.store, "b")
    red = await world.red()
    assert await world.told(before) == [("red", red.key)]


async def test_a_database_of_before_is_brought_up_with_what_is_open(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "old.db"
    held = world.message(Red(kind=RedKind.STUCK, reason="x"))
    over = world.message(Red(kind=RedKind.STUCK, reason="y"))
    ended = world.message(Clear(ref=over.key, reason="repaired"))

    def make() -> None:
        db = sqlite3.connect(path)
        db.executescript(schema._SCHEMA + schema._TO_2 + "PRAGMA user_version = 2;")
        for message in (over, held, ended):
            body = message.payload.body
            db.execute(
                "INSERT INTO envelopes (key, sha256, origin, epoch, sequence, type, ref, raw, at, keyid)"
                " VALUES (?, ?, 'a', 1, 1, ?, ?, ?, 1.0, ?)",
                (message.key, message.sha256, body.type, message.ref, message.raw, message.keyid),
            )
        db.commit()
        db.close()

    await asyncio.to_thread(make)
    old = await Store.open(path)
    inbox = Inbox(old, "b")
    assert [event.key for event in await inbox.after(0)] == [held.key]
    later = world.message(Red(kind=RedKind.STUCK, reason="z"))
    await old.add(later, 2.0, [])
    assert [event.key for event in await inbox.after(1)] == [later.key]
    await old.close()


async def test_what_is_pruned_is_told_no_more(world: World) -> None:
    red = await world.red()
    ended = await world.end(red)
    still = await world.red("another")
    await world.store.uploaded([red.sha256, ended.sha256, still.sha256])
    await world.store.prune(8.0)
    assert await world.told() == [("red", still.key)]
    dismissed = await world.red("of a node that is gone")
    await world.store.dismiss(dismissed.key, "gone", 7.0)
    await world.store.uploaded([dismissed.sha256])
    assert await world.store.prune(8.0) == 1


@pytest.fixture
async def client(world: World, aiohttp_client: Clients) -> AsyncIterator[Client]:
    task = asyncio.create_task(world.feed.run())
    yield await aiohttp_client(add_reds(application(), world.feed))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def blocks(answer: ClientResponse, count: int) -> list[dict[str, str]]:
    """So many blocks with an id, as far as they have come."""
    found: list[dict[str, str]] = []
    block: dict[str, str] = {}
    async with asyncio.timeout(60):
        while len(found) < count:
            name, _, value = (await answer.content.readline()).decode().strip().partition(": ")
            if name:
                block[name] = value
            elif block:
                found += [block] if "id" in block else []
                block = {}
    return found


async def test_a_stream_begins_with_what_is_open_and_goes_on(world: World, client: Client) -> None:
    gone, held = await world.red("one"), await world.red("two")
    await world.end(gone)
    answer = await client.get("/v1/reds/stream")
    assert answer.headers["Content-Type"] == "text/event-stream"
    first = await blocks(answer, 2)
    assert [(each.get("event"), each["id"]) for each in first] == [("red", "2"), (None, "3")]
    assert json.loads(first[0]["data"])["key"] == held.key
    ended = await world.end(held)
    (last,) = await blocks(answer, 1)
    assert (last["event"], last["id"]) == ("clear", "4")
    assert json.loads(last["data"])["key"] == held.key
    assert ended.ref == held.key
    answer.close()


async def test_who_comes_again_with_its_last_id_misses_nothing_and_hears_nothing_twice(
    world: World, client: Client
) -> None:
    for number in range(70):
        await world.red(f"{number}")
    answer = await client.get("/v1/reds/stream", headers={"Last-Event-ID": "3"})
    found = await blocks(answer, 67)
    assert [int(each["id"]) for each in found] == list(range(4, 71))
    answer.close()
    above = await client.get("/v1/reds/stream?after=999")
    assert (await blocks(above, 1))[0]["id"] == "1", "no id of this inbox: all that is open"
    above.close()
    assert (await client.get("/v1/reds/stream?after=-1")).status == 400


async def test_the_number_of_consumers_is_bounded_and_places_come_free(
    world: World, client: Client
) -> None:
    open_ = [await client.get("/v1/reds/stream") for _ in range(MAX_CONSUMERS)]
    crowded = await client.get("/v1/reds/stream")
    assert (crowded.status, (await crowded.json(content_type=None))["code"]) == (503, "crowded")
    open_[0].close()
    async with asyncio.timeout(60):
        while True:
            await world.red()
            again = await client.get("/v1/reds/stream")
            if again.status == 200:
                break
    for each in (*open_, again):
        each.close()


async def test_a_reader_that_takes_nothing_keeps_nobody_waiting(world: World) -> None:
    task = asyncio.create_task(world.feed.run())
    async with world.feed.subscribe(0), world.feed.subscribe(0) as quick:
        red = await world.red()
        async with asyncio.timeout(60):
            page = await anext(aiter(quick))
        assert [event.key for event in page.events] == [red.key]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Stuck:
    """An answer whose reader takes nothing."""

    def __init__(self) -> None:
        self.ended = False

    async def write(self, _: bytes) -> None:
        await asyncio.Event().wait()

    def force_close(self) -> None:
        self.ended = True


async def test_a_reader_that_is_too_slow_is_let_go() -> None:
    stuck = Stuck()
    assert not await _write(cast(web.StreamResponse, stuck), "x", limit_s=0.05)
    assert stuck.ended


async def test_one_red_is_handed_out_as_it_was_signed(world: World, client: Client) -> None:
    red = await world.red()
    answer = await client.get(f"/v1/reds/{red.key}")
    assert json.loads(await answer.read()) == {"red": red.raw}
    assert (await client.get("/v1/reds/a:1:99")).status == 404


def test_an_idle_stream_says_so_in_a_comment() -> None:
    assert render(Page([], 7)) == ": nothing new\n\nid: 7\n\n"


async def test_the_list_says_where_to_go_on(world: World, client: Client) -> None:
    gone, held = await world.red("one"), await world.red("two")
    await world.end(gone)
    value = json.loads(await (await client.get("/v1/reds")).read())
    assert (value["node"], value["last"]) == ("b", 3)
    assert [each["key"] for each in value["reds"]] == [held.key]


async def test_following_bridges_a_restart_of_the_agent(world: World, tmp_path: Path) -> None:
    """The stream ends with the door, and the follower goes on after what it had."""
    layout = Layout(tmp_path)
    shown: list[RedEvent] = []
    said: list[str] = []
    got = asyncio.Event()

    def show(event: RedEvent) -> None:
        shown.append(event)
        got.set()

    async def until(count: int) -> None:
        async with asyncio.timeout(15):
            while len(shown) < count:
                got.clear()
                await got.wait()

    following = asyncio.create_task(follow(tmp_path, None, show, said.append, SystemClock()))
    first = await world.red("one")
    async with _door(world, layout):
        await until(1)
    second = await world.red("two")
    async with _door(world, layout):
        await until(2)
        third = await world.end(first)
        await until(3)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert [event.key for event in shown] == [first.key, second.key, first.key]
    assert third.ref == first.key
    assert said[0] == "the agent is not there; trying again"
    assert "the agent is back" in said


@asynccontextmanager
async def _door(world: World, layout: Layout) -> AsyncIterator[None]:
    """An agent's door, anew each time."""
    world.feed = Feed(world.inbox, SystemClock())
    task = asyncio.create_task(world.feed.run())
    runner = web.AppRunner(add_reds(application(), world.feed), access_log=None)
    await runner.setup()
    await asyncio.to_thread(layout.socket.unlink, missing_ok=True)
    await web.UnixSite(runner, str(layout.socket)).start()
    yield
    await runner.cleanup()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_person_reads_a_line_for_each_event() -> None:
    event = RedEvent(
        id=7,
        event=Event.RED,
        key="a:1:1",
        origin="a",
        own=False,
        kind="stuck",
        reason="no way back",
        release=None,
        issued=1.0,
        at=2.0,
    )
    ended = event.model_copy(
        update={"id": 8, "event": Event.CLEAR, "by": EndedBy.OPERATOR, "reason": "seen to"}
    )
    assert _words(event) == "7 red of a (stuck): no way back [a:1:1]"
    assert _words(ended) == "8 clear by operator: seen to [a:1:1]"
