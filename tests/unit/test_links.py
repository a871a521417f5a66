"""Two connections with one peer, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.peers.directory import Found, Hint
from agent.peers.link import HEARTBEAT_S
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_liveness import Valve
from tests.unit.test_mesh import Peer, until, with_files


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path, ("a", "b")))


@pytest.fixture
async def pair(fleet: TestFleet) -> AsyncIterator[tuple[Peer, Peer]]:
    a, b = await Peer(fleet, "a").up(), await Peer(fleet, "b").up()
    yield a, b
    await a.down()
    await b.down()


def is_linked(a: Peer, b: Peer) -> bool:
    return a.links.get("b") is not None and b.links.get("a") is not None


async def test_who_dials_anew_is_not_kept_waiting_by_a_connection_that_died_without_a_word(
    pair: tuple[Peer, Peer],
) -> None:
    """a has dialled b, through a way that then swallows everything. b knows that it is over, as after a change of
    its address; its new connection would have to give way to the one of the smaller name."""
    a, b = pair
    valve = await Valve(b.port).open()
    try:
        a.directory.learn("b", Hint("127.0.0.1", valve.port, Found.STATIC))
        keeping = asyncio.create_task(a.links.keep("b"))
        await until(lambda: is_linked(a, b), "linked through the valve")
        stale, lost = a.links.get("b"), b.links.get("a")
        assert stale is not None
        assert lost is not None
        valve.hold()
        keeping.cancel()
        await lost.end()
        b.knows(a)
        loop = asyncio.get_running_loop()
        began = loop.time()
        dialling = asyncio.create_task(b.links.keep("a"))
        await until(lambda: a.links.get("b") not in (None, stale), "a has taken the new one up")
        assert loop.time() - began < HEARTBEAT_S / 2
        fresh = a.links.get("b")
        assert fresh is not None
        assert await fresh.ask("GET", "/v1/peer/ping", timeout_s=5) == b"{}"
        dialling.cancel()
    finally:
        valve.let_go()
        await valve.cut()


async def test_of_two_that_live_the_one_of_the_smaller_name_stays(pair: tuple[Peer, Peer]) -> None:
    a, b = pair
    a.knows(b)
    b.knows(a)
    keeping = asyncio.create_task(a.links.keep("b"))
    await until(lambda: is_linked(a, b), "linked")
    first = a.links.get("b")
    assert await b.links._dial("a")
    await asyncio.sleep(0.5)
    assert a.links.get("b") is first
    kept = b.links.get("a")
    assert kept is not None
    assert kept.dialled_by == "a"
    assert await kept.ask("GET", "/v1/peer/ping", timeout_s=5) == b"{}"
    keeping.cancel()


async def test_a_node_that_leaves_does_not_wait_for_those_who_dialled_it(
    pair: tuple[Peer, Peer],
) -> None:
    a, b = pair
    a.knows(b)
    keeping = asyncio.create_task(a.links.keep("b"))
    await until(lambda: is_linked(a, b), "linked")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await b.down()
    assert loop.time() - began < 1.5, "the door would wait for two seconds, twice"
    await until(lambda: a.links.get("b") is None, "a knows it")
    keeping.cancel()
