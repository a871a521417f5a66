"""Alarms on real networks, found by mDNS alone, with no coordinator from start to end."""

from __future__ import annotations

import pytest

from scripts.lab.fleet import until_acked, until_heard
from tests.lab.alarms import HEARD_S, check_alarms, until_open
from tests.lab.conftest import Make


@pytest.mark.parametrize("size", [3, 10])
async def test_a_red_on_any_node_freezes_all_others_and_is_in_every_inbox_once(
    make: Make, size: int
) -> None:
    await check_alarms(await make(size, "--discover"))


async def test_who_was_off_learns_of_every_open_red_and_none_is_told_twice(make: Make) -> None:
    """One that ended meanwhile is no red of today. A restart tells consumers nothing anew."""
    fleet = await make(4)
    n0, n1, off = (fleet.nodes[name] for name in ("n0", "n1", "n3"))
    before = (await n0.do("red", reason="before"))["key"]
    await until_heard(fleet.others("n0"), before, HEARD_S)
    await off.stop()
    opened = [(await n0.do("red", reason=str(number)))["key"] for number in range(8)]
    over = (await n1.do("red", reason="for a moment"))["key"]
    await until_heard([n0], over, HEARD_S)
    await n1.do("clear", key=over, reason="over")
    await until_heard([fleet.nodes["n2"]], opened[-1], HEARD_S)
    await n0.stop()
    """Whose reds they are is not there to tell them."""
    await off.start()
    for key in opened:
        await until_heard([off], key, HEARD_S)
    await until_open(off, [before, *opened])
    given = [e["key"] for e in (await off.do("inbox"))["events"] if e["event"] == "red"]
    assert sorted(given) == sorted({before, over, *opened} & set(given))
    assert {before, *opened} <= set(given)
    await n0.start()
    for key in opened:
        assert await until_acked(n0, key, 3, HEARD_S) > 0
    heard = [e["key"] for e in off.events if e["event"] == "heard" and e["type"] == "red"]
    assert sorted(heard) == sorted(set(heard)), "each once, over the restart too"
