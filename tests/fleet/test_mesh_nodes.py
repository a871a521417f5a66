"""Nodes of the mesh alone, each a process, as the lab and the benchmarks use them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.peers.silence import DOUBT_S, SETTLE_S
from scripts.lab.homes import make_homes
from scripts.lab.network import Network, can_make_networks
from scripts.lab.process import NodeProcess
from scripts.minifleet.ports import free_port
from shared.errors import CommandError

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[dict[str, NodeProcess]]:
    """Four on loopback, linked, and past the first seconds in which they accuse nobody."""
    homes = await asyncio.to_thread(make_homes, tmp_path, NAMES)
    ports = {name: free_port() for name in NAMES}
    made = {}
    for name in NAMES:
        others = {each: ("127.0.0.1", ports[each]) for each in NAMES if each != name}
        made[name] = NodeProcess(homes[name], "127.0.0.1", ports[name], others)
    try:
        await asyncio.gather(*(node.start() for node in made.values()))
        for node in made.values():
            await node.until_linked(NAMES)
        await asyncio.sleep(SETTLE_S + 1)
        yield made
    finally:
        await asyncio.gather(*(node.stop() for node in made.values()))


async def told(
    nodes: dict[str, NodeProcess], gone: str, marks: dict[str, int]
) -> list[dict[str, Any]]:
    others = [node for name, node in nodes.items() if name != gone]
    return await asyncio.gather(
        *(
            node.until(
                lambda event: gone in event.get("away", {}),
                f"{gone} is away",
                after=marks[node.name],
            )
            for node in others
        )
    )


def marks(nodes: dict[str, NodeProcess]) -> dict[str, int]:
    return {name: len(node.events) for name, node in nodes.items()}


@pytest.mark.alone
async def test_a_killed_process_is_silent_to_all_before_a_second_is_over(
    nodes: dict[str, NodeProcess],
) -> None:
    before, began = marks(nodes), time.monotonic()
    nodes["d"].send(signal.SIGKILL)
    events = await told(nodes, "d", before)
    assert max(event["at"] for event in events) - began < 1.0
    assert not any(event["away"]["d"]["left"] for event in events)
    red = await nodes["a"].do("red", reason="gateway: down")
    heard = await nodes["b"].until(lambda event: event.get("key") == red["key"], "b hears it")
    assert heard["type"] == "red"
    assert (await nodes["b"].do("reds"))["frozen_by"] == [red["key"]]
    await nodes["a"].do("clear", key=red["key"], reason="over")
    with pytest.raises(CommandError, match="there is no 'nonsense'"):
        await nodes["a"].do("nonsense")


async def test_a_stopped_process_is_silent_and_accuses_nobody_when_it_goes_on(
    nodes: dict[str, NodeProcess],
) -> None:
    before = marks(nodes)
    nodes["d"].send(signal.SIGSTOP)
    events = await told(nodes, "d", before)
    assert all("nor " in event["away"]["d"]["reason"] for event in events)
    nodes["d"].send(signal.SIGCONT)
    for name in ("a", "b", "c"):
        await nodes[name].until(lambda event: event.get("away") == {}, "d is back")
    await asyncio.sleep(DOUBT_S)
    assert not [event for event in nodes["d"].events if event["event"] == "away"]


async def test_one_that_is_ended_in_order_has_left(nodes: dict[str, NodeProcess]) -> None:
    before = marks(nodes)
    await nodes["d"].stop()
    for event in await told(nodes, "d", before):
        assert event["away"]["d"]["left"]


@pytest.mark.skipif(not can_make_networks(), reason="needs root on Linux: network namespaces")
async def test_a_cable_that_is_pulled_under_loss(tmp_path: Path) -> None:
    """Every tenth packet is lost, which makes nobody silent; then one node's cable is pulled."""
    homes = await asyncio.to_thread(make_homes, tmp_path, NAMES)
    async with Network(NAMES) as network:
        made = {}
        for name in NAMES:
            others = {each: (network.host(each), 7465) for each in NAMES if each != name}
            made[name] = NodeProcess(
                homes[name], network.host(name), 7465, others, before=network.before(name)
            )
        try:
            await asyncio.gather(*(node.start() for node in made.values()))
            for node in made.values():
                await node.until_linked(NAMES)
            await asyncio.gather(*(network.lose(name, 0.1) for name in NAMES))
            await asyncio.sleep(20)
            assert not [e for node in made.values() for e in node.events if e["event"] == "away"]
            before = marks(made)
            await network.cut("d")
            await told(made, "d", before)
            assert not [e for e in made["d"].events if e["event"] == "away"], "it is cut off itself"
            await network.mend("d")
            for name in ("a", "b", "c"):
                await made[name].until(lambda event: event.get("away") == {}, "d is back")
        finally:
            await asyncio.gather(*(node.stop() for node in made.values()))
