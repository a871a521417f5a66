"""What must come of a red on any node, whatever the size of the fleet."""

from __future__ import annotations

import asyncio

from scripts.lab.fleet import LabFleet, accuses, until_heard
from scripts.lab.process import NodeProcess

HEARD_S = 25.0
"""Less than ROUND_S of test_thirty.py, in which notes are compared whatever was delivered."""


async def check_alarms(fleet: LabFleet) -> None:
    """A red of each at the same time: it freezes all others and is given to every consumer once, as is its end."""
    keys = await one_red_of_each(fleet)
    await check_frozen(fleet, keys)
    await clear_all(fleet, keys)
    for node in fleet.nodes.values():
        given = [(e["event"], e["key"]) for e in (await node.do("inbox"))["events"]]
        assert sorted(given) == sorted((e, key) for e in ("red", "clear") for key in keys.values())
        assert (await node.do("footprint"))["dropped"] == {}
    assert not fleet.events(accuses)


async def one_red_of_each(fleet: LabFleet) -> dict[str, str]:
    """Keys by origin: all at the same time, and everybody has heard of each."""
    said = await asyncio.gather(*(node.do("red", reason="down") for node in fleet.nodes.values()))
    keys = {name: each["key"] for name, each in zip(fleet.nodes, said, strict=True)}
    for origin, key in keys.items():
        await until_heard(fleet.others(origin), key, HEARD_S)
    return keys


async def check_frozen(fleet: LabFleet, keys: dict[str, str]) -> None:
    """Each by the reds of all others, and each red was given to its consumers once."""
    for name, node in fleet.nodes.items():
        held = await node.do("reds")
        assert held["open"] == sorted(keys.values())
        assert held["frozen_by"] == sorted(key for origin, key in keys.items() if origin != name)
        given = [(e["event"], e["key"]) for e in (await node.do("inbox"))["events"]]
        assert sorted(given) == sorted(("red", key) for key in keys.values())


async def until_open(node: NodeProcess, keys: list[str]) -> None:
    async with asyncio.timeout(HEARD_S):
        while (await node.do("reds"))["open"] != sorted(keys):
            await asyncio.sleep(0.1)


async def clear_all(fleet: LabFleet, keys: dict[str, str]) -> None:
    for origin, key in keys.items():
        await fleet.nodes[origin].do("clear", key=key, reason="over")
    for node in fleet.nodes.values():
        await until_open(node, [])
