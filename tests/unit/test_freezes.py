"""A freeze by hand: durable, told with what lifts it, and no obstacle to anything but a move."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.freezes import FILE, KEPT_PAST, Freezes, HandFreeze
from agent.upgrade.decide import Start, Wait, admit
from coordinator.rollout.decide import decide
from shared.errors import ConflictError
from shared.freezing import By
from shared.messages import Red, RedKind
from shared.report import Target
from tests.conftest import ManualClock
from tests.unit.test_mesh import Peer, fleet, peers  # noqa: F401 - fixtures
from tests.unit.test_rollout import NOW, make
from tests.unit.test_rollout import fleet as known

TARGET = Target(
    order="a1b2c3d4:a",
    rollout="a1b2c3d4",
    release="1" * 64,
    set_by="x",
    set_at=0,
    soak_s=0,
)


async def hand(
    home: Path, clock: ManualClock, told: list[str] | None = None, name: str = "a"
) -> HandFreeze:
    def changed() -> None:
        if told is not None:
            told.append("changed")

    return await asyncio.to_thread(HandFreeze, home, name, clock, changed)


async def test_a_freeze_outlives_the_agent_and_keeps_who_when_and_why(
    tmp_path: Path, clock: ManualClock
) -> None:
    told: list[str] = []
    first = await hand(tmp_path, clock, told)
    await first.freeze("alice", "maintenance")
    again = await hand(tmp_path, clock)
    assert again.now == first.now
    assert again.now is not None
    assert (again.now.who, again.now.why) == ("alice", "maintenance")
    with pytest.raises(ConflictError, match="alice froze this node already: maintenance"):
        await again.freeze("bob", "another")
    await again.lift("bob", "done")
    last = await hand(tmp_path, clock)
    assert last.now is None
    assert [(each.who, each.why, each.freeze.who) for each in last.past] == [
        ("bob", "done", "alice")
    ]
    with pytest.raises(ConflictError, match="not frozen by hand"):
        await last.lift("bob", "again")
    assert told == ["changed"]


async def test_the_past_is_bounded(tmp_path: Path, clock: ManualClock) -> None:
    held = await hand(tmp_path, clock)
    for number in range(KEPT_PAST + 2):
        await held.freeze("alice", f"{number}")
        await held.lift("alice", "over")
    assert len((await hand(tmp_path, clock)).past) == KEPT_PAST
    assert held.past[-1].freeze.why == f"{KEPT_PAST + 1}"


async def test_a_file_that_cannot_be_read_freezes(tmp_path: Path, clock: ManualClock) -> None:
    await asyncio.to_thread((tmp_path / FILE).write_text, '{"now": ')
    held = await hand(tmp_path, clock)
    assert held.now is not None
    assert "cannot be read" in held.now.why
    await held.lift("alice", "looked at it")
    assert (await hand(tmp_path, clock)).now is None


async def test_both_causes_are_told_with_what_lifts_each(
    peers: list[Peer],  # noqa: F811
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    a, b, _ = peers
    freezes = Freezes(await hand(b.layout.home, clock, name="b"), b.mesh, "b")
    assert (freezes.first(), freezes.words()) == (None, [])
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    stuck = await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="no way back"))
    for message in (red, stuck):
        await b.mesh.receive(message.raw.encode())
    assert freezes.first() == "a red of a"
    assert freezes.words() == [
        "frozen by a red of a (readiness: gateway: down): ends when a is green again,"
        f" or an operator clears it: rollcall red clear {red.key}",
        "frozen by a red of a (stuck: no way back): ends when it is cleared on a,"
        f" or an operator clears it: rollcall red clear {stuck.key}",
    ]
    await freezes.hand.freeze("alice", "maintenance")
    first = freezes.now()[0]
    assert (first.by, freezes.first()) == (By.HAND, "hand: maintenance")
    assert first.words.endswith("by hand (maintenance): lift with rollcall-agent unfreeze on b")


def test_a_frozen_node_begins_nothing_and_says_why() -> None:
    step = admit(TARGET, None, None, ["frozen since then by hand (x): lift with y"], [])
    assert step == Wait("frozen since then by hand (x): lift with y")
    assert isinstance(admit(TARGET, None, None, [], []), Start)


async def test_a_rollout_says_which_node_will_stay_and_what_lifts_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    held = await hand(tmp_path, clock)
    await held.freeze("alice", "maintenance")
    assert held.now is not None
    seen = known()
    nodes = {
        name: view.model_copy(update={"freezes": [held.now]}) if name == "witness" else view
        for name, view in seen.nodes.items()
    }
    begun = decide(make(), type(seen)(nodes, []), NOW)
    reasons = {node.name: node.reason for node in begun.nodes}
    assert "by hand (maintenance): lift with rollcall-agent unfreeze" in reasons["witness"]
    assert "by hand" not in reasons["stable"]
