"""What a load balancer is told: the words, and the doors that say them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from agent.agentcheck import MAX_CONNECTIONS, MAX_SECONDS, AgentCheck, Answers, Asked, plain, word
from agent.readiness.history import History
from agent.readiness.publishing import Published
from agent.reading_api import reading_app
from shared.clock import SystemClock
from shared.errors import RollcallError
from shared.messages import Verdict
from shared.readiness import ReadinessDocument
from shared.report import NodeReport, ReadinessSummary
from tests.conftest import ManualClock
from tests.unit.test_readiness import READINGS, document

GREEN = document(READINGS)
UNKNOWN = document({})
RED = GREEN.model_copy(update={"status": Verdict.RED, "reason": "gateway: it does not answer"})


@pytest.mark.parametrize(
    ("ready", "weight", "starting", "line"),
    [
        (GREEN, 100, False, "up 100%"),
        (GREEN, 25, True, "up 25%"),
        (GREEN, 0, False, "up 0%"),
        (RED, 100, False, "down #gateway: it does not answer"),
        (RED, 0, True, "down #gateway: it does not answer"),
        (UNKNOWN, 100, True, "100%"),
        (UNKNOWN, 0, True, "0%"),
    ],
)
def test_the_words(ready: ReadinessDocument, weight: int, starting: bool, line: str) -> None:
    assert word(ready, weight, starting=starting) == line


def test_unknown_is_down() -> None:
    line = word(UNKNOWN, 100, starting=False)
    assert line.startswith("down #")
    assert "not read yet" in line


@pytest.mark.parametrize("weight", [0, 1, 50, 100])
@pytest.mark.parametrize("ready", [GREEN, RED, UNKNOWN])
@pytest.mark.parametrize("starting", [True, False])
def test_no_answer_touches_the_administrative_state(
    ready: ReadinessDocument, weight: int, starting: bool
) -> None:
    """`ready`, `drain` and `maint` before the sharp would take an operator's own word back."""
    spoken = word(ready, weight, starting=starting).partition("#")[0].split()
    assert set(spoken) <= {"up", "down", f"{weight}%"}


def test_a_reason_is_one_bounded_line() -> None:
    said = plain("tree: 3 files\r\nready\tup 100%\x1b[31m caf\u00e9 " + "x" * 5000)
    assert said.startswith("tree: 3 files ready up 100% [31m caf xxx")
    assert len(said) == 100
    red = RED.model_copy(update={"reason": "\n\n"})
    assert word(red, 100, starting=False) == "down #red"


def test_starting_ends_with_the_first_verdict_or_after_a_minute(clock: ManualClock) -> None:
    now = [UNKNOWN]
    answers = Answers(lambda: now[0], lambda: 100, clock)
    assert answers.now() == "100%"
    now[0] = GREEN
    assert answers.now() == "up 100%"
    now[0] = UNKNOWN
    assert answers.now().startswith("down")
    slow = Answers(lambda: UNKNOWN, lambda: 100, clock)
    clock.advance(59)
    assert slow.now() == "100%"
    clock.advance(1)
    assert slow.now().startswith("down")


class Door:
    def __init__(self) -> None:
        self.line = "up 100%"
        self.told: list[tuple[str, str]] = []
        self.check = AgentCheck(
            "127.0.0.1",
            0,
            Asked(lambda: self.line, lambda *told: self.told.append(told[:2]), SystemClock()),
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.check.port)

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.told) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.check.start()
    yield made
    await made.check.stop()


async def test_a_question_is_answered_at_once_and_counts_when_it_was_read(door: Door) -> None:
    reader, writer = await door.connect()
    assert await reader.read() == b"up 100%\n"
    assert door.told == [], "the other side has not ended it yet"
    writer.close()
    await door.until_told(1)
    assert door.told == [("127.0.0.1", "up 100%")]


async def test_what_is_sent_to_it_does_not_cost_the_answer(door: Door) -> None:
    """HAProxy's `agent-send`."""
    reader, writer = await door.connect()
    writer.write(b"which backend\n")
    assert await reader.read() == b"up 100%\n"
    writer.close()
    await door.until_told(1)


async def write_for_ever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_flood_is_cut_off_and_does_not_count(door: Door) -> None:
    _, writer = await door.connect()
    began = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionError):
        await write_for_ever(writer, b"x" * 10_000)
    writer.close()
    assert asyncio.get_running_loop().time() - began < MAX_SECONDS
    assert door.told == []


async def test_one_that_stays_is_ended_and_does_not_count(door: Door) -> None:
    reader, writer = await door.connect()
    assert await reader.readline() == b"up 100%\n"
    began = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(write_for_ever(writer, b"x"), 2 * MAX_SECONDS)
    writer.close()
    assert asyncio.get_running_loop().time() - began > MAX_SECONDS / 2
    assert door.told == []


async def test_a_crowd_that_stays_keeps_nobody_out(door: Door) -> None:
    crowd = [await door.connect() for _ in range(MAX_CONNECTIONS + 10)]
    door.line = "up 0%"
    reader, writer = await door.connect()
    async with asyncio.timeout(1):
        assert await reader.readline() == b"up 0%\n"
    for each in [writer, *(other for _, other in crowd)]:
        each.close()
    await door.until_told(MAX_CONNECTIONS)
    assert len(door.told) == MAX_CONNECTIONS
    assert ("127.0.0.1", "up 0%") in door.told


async def test_a_port_that_is_taken_is_said_with_a_remedy(door: Door) -> None:
    second = AgentCheck(
        "127.0.0.1", door.check.port, Asked(lambda: "", lambda *_: None, SystemClock())
    )
    with pytest.raises(RollcallError, match="cannot listen on"):
        await second.start()
    await second.stop()


class Node:
    """What the door asks of a daemon."""

    def __init__(self, ready: ReadinessDocument, weight: int) -> None:
        self.ready, self.percent = ready, weight
        self.told: list[tuple[str | None, str]] = []
        self.history = History()

    def published(self) -> Published:
        return Published(self.ready, {})

    def weight(self) -> int:
        return self.percent

    async def report(self) -> NodeReport:
        ready = ReadinessSummary(status=self.ready.status)
        return NodeReport(node="a", agent_version="0", readiness=ready)

    async def roll_back(self, reason: str) -> NodeReport:
        return await self.report()

    async def clear(self, key: str, reason: str) -> None: ...

    async def change_keys(self) -> str:
        return ""

    def told_readiness(self, address: str | None, told: str) -> None:
        self.told.append((address, told))


@pytest.mark.parametrize(
    ("ready", "weight", "status", "reason"),
    [
        (GREEN, 100, 200, None),
        (GREEN, 1, 200, None),
        (GREEN, 0, 503, "drained"),
        (RED, 100, 503, "gateway: it does not answer"),
        (UNKNOWN, 100, 503, UNKNOWN.reason),
        (UNKNOWN, 0, 503, UNKNOWN.reason),
    ],
)
async def test_readyz(
    ready: ReadinessDocument, weight: int, status: int, reason: str | None
) -> None:
    node = Node(ready, weight)
    async with TestClient(TestServer(reading_app(node))) as client, client.get("/readyz") as answer:
        body = await answer.json()
    assert (answer.status, body["ready"], body.get("reason")) == (status, status == 200, reason)
    told = "200" if status == 200 else f"503 {reason}"
    assert node.told == [("127.0.0.1", told)]
