"""Who asks this node, and when a drain may believe that all of them know. Time is moved by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.balancers import MAX_ASKERS, Balancers, Settling, Via
from agent.traffic import Traffic
from tests.conftest import ManualClock

EVERY_S, AT_MOST_S = 2.0, 15.0


class World:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.askers = Balancers(clock, Settling(EVERY_S, AT_MOST_S))
        self.askers.open()
        clock.advance(EVERY_S)

    def ask(self, via: Via = Via.AGENT_CHECK, address: str = "10.0.0.1") -> None:
        self.askers.answered(via, address, "up 0%", self.clock.monotonic())

    async def drain(self) -> asyncio.Task[list[str]]:
        begin = self.clock.monotonic()
        task = asyncio.create_task(self.askers.until_told(begin))
        await asyncio.sleep(0)
        return task

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            await asyncio.sleep(0)


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


async def test_nobody_asks_and_nobody_waits(world: World) -> None:
    assert await (await world.drain()) == []


async def test_one_that_asked_lately_must_ask_again(world: World) -> None:
    world.ask()
    waiting = await world.drain()
    await world.pass_time(5)
    assert not waiting.done()
    world.ask()
    await world.pass_time(0.2)
    assert waiting.done()
    assert await waiting == []


async def test_an_answer_made_before_the_drain_does_not_count(world: World) -> None:
    """It was on its way while the weight changed."""
    made = world.clock.monotonic()
    world.ask()
    world.clock.advance(0.1)
    waiting = await world.drain()
    world.askers.answered(Via.AGENT_CHECK, "10.0.0.1", "up 100%", made)
    await world.pass_time(EVERY_S + 1)
    assert not waiting.done()
    waiting.cancel()


async def test_several_backends_behind_one_address_all_have_their_turn(world: World) -> None:
    """Two streams of questions from one address look like one of twice the rate."""
    world.ask()
    waiting = await world.drain()
    await world.pass_time(0.1)
    world.ask()
    await world.pass_time(EVERY_S - 0.3)
    assert not waiting.done()
    await world.pass_time(0.5)
    assert waiting.done()
    assert await waiting == []


async def test_who_looks_at_readyz_needs_three_answers(world: World) -> None:
    for _ in range(2):
        world.ask(Via.READYZ)
    waiting = await world.drain()
    for _ in range(2):
        await world.pass_time(EVERY_S)
        world.ask(Via.READYZ)
    await world.pass_time(1)
    assert not waiting.done()
    await world.pass_time(1)
    world.ask(Via.READYZ)
    await world.pass_time(0.2)
    assert waiting.done()
    assert await waiting == []


async def test_one_look_at_readyz_is_a_person(world: World) -> None:
    world.ask(Via.READYZ)
    assert await (await world.drain()) == []
    assert world.askers.seen() == []


async def test_one_that_stays_away_holds_a_drain_for_its_time_and_is_named(world: World) -> None:
    world.ask()
    world.ask(address="10.0.0.2")
    waiting = await world.drain()
    await world.pass_time(1)
    world.ask()
    await world.pass_time(AT_MOST_S - 2)
    assert not waiting.done()
    await world.pass_time(1.2)
    assert waiting.done()
    assert await waiting == ["10.0.0.2 (agent-check)"]


async def test_one_that_has_been_away_for_a_minute_is_forgotten(world: World) -> None:
    world.ask()
    world.clock.advance(61)
    assert world.askers.seen() == []
    assert await (await world.drain()) == []


async def test_an_agent_that_has_just_started_does_not_know_who_asks(clock: ManualClock) -> None:
    askers = Balancers(clock, Settling(EVERY_S, AT_MOST_S))
    assert await askers.until_told(clock.monotonic()) == [], "no door is open"
    askers.open()
    waiting = asyncio.create_task(askers.until_told(clock.monotonic()))
    await asyncio.sleep(0)
    clock.advance(EVERY_S - 0.1)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(0.2)
    assert await waiting == []


def test_what_is_known_of_askers_is_bounded(world: World) -> None:
    for number in range(MAX_ASKERS + 5):
        world.ask(address=f"10.0.1.{number}")
    seen = world.askers.seen()
    assert len(seen) == MAX_ASKERS
    assert seen[-1].address == f"10.0.1.{MAX_ASKERS + 4}"
    assert (seen[-1].via, seen[-1].told, seen[-1].asked) == (
        "agent-check",
        "up 0%",
        world.clock.now(),
    )


async def test_the_weight_is_durable_and_told_before_a_drain_is_over(
    world: World, tmp_path: Path
) -> None:
    changes: list[None] = []

    def traffic() -> Traffic:
        return Traffic(
            tmp_path / "traffic.json", lambda: changes.append(None), world.askers, world.clock
        )

    ours = await asyncio.to_thread(traffic)
    assert ours.get() == 100
    world.ask()
    world.clock.advance(0.1)
    leaving = asyncio.create_task(ours.leave())
    while not changes:
        await asyncio.sleep(0.001)
    assert ours.get() == 0
    assert (await asyncio.to_thread(traffic)).get() == 0
    await world.pass_time(5)
    assert not leaving.done()
    world.ask()
    await world.pass_time(0.2)
    assert await leaving == []
    assert await ours.leave() == [], "they know already"


@pytest.mark.parametrize("text", ["", "{}", '{"percent": 101}', '{"percent": -1}', "\0\0"])
def test_a_weight_that_cannot_be_read_is_full(world: World, tmp_path: Path, text: str) -> None:
    """The other way round a damaged file would keep a healthy node away for ever."""
    path = tmp_path / "traffic.json"
    path.write_text(text)
    assert Traffic(path, lambda: None, world.askers, world.clock).get() == 100
