"""Faults 18, 19, 20 and 22: what a network and a host do to nodes that are all there. Nobody may be called silent."""

from __future__ import annotations

import asyncio
import signal

from agent.peers.silence import DOUBT_S
from scripts.lab.fleet import LabFleet, accuses, until_acked, until_heard
from tests.lab.conftest import Make

NODES = 4
SETTLE_S = 4.0
"""Nobody accuses in the first seconds."""
WATCHED_S = 12.0
ROUND_S = 30.0
HANG_S = 8.0


async def settled(make: Make, *words: str) -> LabFleet:
    fleet = await make(NODES, *words)
    await asyncio.sleep(SETTLE_S)
    return fleet


async def test_where_one_way_is_deaf_another_node_delivers_and_nobody_is_silent(
    make: Make,
) -> None:
    """n1 gets nothing of what n0 sends; the way back works."""
    fleet = await settled(make)
    await fleet.network.lose("n1", 1.0, of="n0")
    key = (await fleet.nodes["n0"].do("red", reason="one way"))["key"]
    await until_heard([fleet.nodes["n1"]], key, ROUND_S)
    assert key in (await fleet.nodes["n1"].do("reds"))["frozen_by"]
    back = (await fleet.nodes["n1"].do("red", reason="the other way"))["key"]
    await until_heard([fleet.nodes["n0"]], back, ROUND_S)
    await asyncio.sleep(WATCHED_S)
    assert not fleet.events(accuses)


async def test_what_is_two_seconds_late_makes_nobody_silent(make: Make) -> None:
    """Every frame of everybody, so an answer takes four."""
    fleet = await settled(make)
    async with fleet.network.rough(["--delay", "2"]):
        node = fleet.nodes["n0"]
        key = (await node.do("red", reason="slow"))["key"]
        assert await until_acked(node, key, NODES - 1, ROUND_S) > 3.9, "the way is long indeed"
        await asyncio.sleep(WATCHED_S)
        assert not fleet.events(accuses)


async def test_five_copies_of_everything_out_of_order_are_one_event_and_the_newest_wins(
    make: Make,
) -> None:
    fleet = await settled(make)
    async with fleet.network.rough(["--copies", "5", "--shuffle", "0.05"]):
        node = fleet.nodes["n0"]
        ended = []
        for number in range(5):
            ended.append((await node.do("red", reason=str(number)))["key"])
            await node.do("clear", key=ended[-1], reason="over")
        stays = (await node.do("red", reason="stays"))["key"]
        for key in (*ended, stays):
            await until_acked(node, key, NODES - 1, ROUND_S)
        await asyncio.sleep(2)
        for other in fleet.others("n0"):
            assert (await other.do("reds"))["frozen_by"] == [stays]
            heard = [e["key"] for e in other.events if e["event"] == "heard"]
            assert sorted(heard) == sorted(set(heard))
            given = [(e["event"], e["key"]) for e in (await other.do("inbox"))["events"]]
            assert [e for e in given if e[0] == "red"].count(("red", stays)) == 1
            assert sorted(given) == sorted(set(given))
        assert not fleet.events(accuses)


async def test_a_process_that_was_stopped_accuses_nobody_when_it_goes_on(make: Make) -> None:
    fleet = await settled(make)
    stopped = fleet.nodes["n3"]
    stopped.send(signal.SIGSTOP)
    await asyncio.sleep(HANG_S)
    for node in fleet.others("n3"):
        assert "n3" in (await node.do("away"))["away"], "it was away"
    stopped.send(signal.SIGCONT)
    await asyncio.sleep(DOUBT_S + WATCHED_S)
    assert not [event for event in stopped.events if accuses(event)]
    for node in fleet.nodes.values():
        assert (await node.do("away"))["away"] == {}
