"""Thirty nodes on one network, found by mDNS alone, with no coordinator: alarms, and faults 16 and 17."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from scripts.lab.fleet import LabFleet, until_acked, until_heard
from tests.lab.alarms import check_alarms
from tests.lab.conftest import running_fleet

pytestmark = [
    pytest.mark.alone,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

NODES = 30
SETTLE_S = 4.0
"""Nobody accuses in the first seconds."""
REDS = 6
ROUND_S = 30.0
"""Between two times that notes are compared, where nothing else is configured."""
APART_S = 8.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thirty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LabFleet]:
    async with running_fleet(tmp_path_factory.mktemp("thirty"), NODES, "--discover") as fleet:
        await asyncio.sleep(SETTLE_S)
        yield fleet


async def test_a_red_on_any_node_freezes_all_others_and_is_in_every_inbox_once(
    thirty: LabFleet,
) -> None:
    await check_alarms(thirty)


@pytest.mark.parametrize(("share", "within_s"), [(0.1, 5.0), (0.3, 30.0)])
async def test_every_red_is_acked_by_all_under_loss(
    thirty: LabFleet, share: float, within_s: float
) -> None:
    await asyncio.gather(*(thirty.network.lose(name, share) for name in thirty.names))
    try:
        for name in thirty.names[:REDS]:
            node = thirty.nodes[name]
            key = (await node.do("red", reason=f"{share:.0%} is lost"))["key"]
            assert await until_acked(node, key, NODES - 1, within_s) <= within_s
            await node.do("clear", key=key, reason="over")
    finally:
        await asyncio.gather(*(thirty.network.lose_nothing(name) for name in thirty.names))


async def test_halves_know_their_own_reds_and_all_know_all_once_they_are_joined(
    thirty: LabFleet,
) -> None:
    names = thirty.names
    left, right = names[: NODES // 2], names[NODES // 2 :]
    halves = [[thirty.nodes[name] for name in half] for half in (left, right)]
    await thirty.network.split(right)
    keys = []
    for half in halves:
        origin, *others = half
        keys.append((await origin.do("red", reason="halved"))["key"])
        await until_heard(others, keys[-1], ROUND_S)
    await asyncio.sleep(APART_S)
    for half, mine, other in ((halves[0], *keys), (halves[1], *keys[::-1])):
        for node in half:
            held = (await node.do("reds"))["open"]
            assert mine in held
            assert other not in held
    await thirty.network.join()
    await asyncio.gather(
        until_heard(halves[1], keys[0], ROUND_S), until_heard(halves[0], keys[1], ROUND_S)
    )
    async with asyncio.timeout(ROUND_S):
        for node in thirty.nodes.values():
            while (await node.do("away"))["away"]:
                await asyncio.sleep(0.2)
