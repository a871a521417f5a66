"""A peer that one node does not reach, and another does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.peers.asked import ASKED, BusyError, Operations
from agent.peers.directory import Found, Hint
from agent.peers.relay import RELAY
from scripts.minifleet.ports import free_port
from shared.errors import BadInputError, NotFoundError, UntrustedError
from shared.messages import MAX_MESSAGE_BYTES, Message, Red, RedKind
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_liveness import Valve
from tests.unit.test_mesh import Peer, until, with_files

NAMES = ("a", "b", "c")


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path, NAMES))


@pytest.fixture
async def peers(fleet: TestFleet) -> AsyncIterator[list[Peer]]:
    made = [await Peer(fleet, name, datagrams=True).up() for name in NAMES]
    yield made
    for peer in made:
        await peer.down()


def is_linked(one: Peer, other: Peer) -> bool:
    return one.links.get(other.name) is not None and other.links.get(one.name) is not None


async def acked_by(peer: Peer) -> set[str]:
    sent = await peer.mesh.recent_broadcasts()
    return set(sent[0].acked_ms) if sent else set()


async def until_acked(peer: Peer, names: set[str], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await acked_by(peer) != names:
            await asyncio.sleep(0.02)


def hush(*peers: Peer) -> None:
    """No notes are compared in this test: what arrives was carried."""
    for peer in peers:
        peer.config = peer.config.model_copy(update={"sync_every": 600.0})


async def up_in_part(fleet: TestFleet, c_of_a: int | None) -> list[Peer]:
    """All up, b linked with both; a has been told that c is at this port, or nothing."""
    made = [Peer(fleet, name, datagrams=True) for name in NAMES]
    hush(*made)
    a, b, c = [await peer.up() for peer in made]
    a.knows(b)
    b.knows(a, c)
    c.knows(b)
    if c_of_a is not None:
        a.directory.learn("c", Hint("127.0.0.1", c_of_a, Found.STATIC))
    for peer in made:
        peer.run()
    await until(lambda: is_linked(a, b) and is_linked(b, c), "b is linked with both")
    return made


@pytest.mark.parametrize("knows_an_address", [False, True])
async def test_another_carries_a_red_and_the_ack_comes_back(
    fleet: TestFleet, knows_an_address: bool
) -> None:
    """a does not reach c: no address of it is known, or the one that is known refuses."""
    a, b, c = await up_in_part(fleet, free_port() if knows_an_address else None)
    try:
        red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
        await until_acked(a, {"b", "c"}, 8)
        assert [each.key for each in c.mesh.frozen_by()] == [red.key]
        assert [each.key for each in b.heard] == [red.key]
        assert not await a.store.undelivered("c", a.clock.now())
    finally:
        for peer in (a, b, c):
            await peer.down()


async def test_a_way_that_swallows_everything_is_not_waited_for(fleet: TestFleet) -> None:
    """What a sends to c is lost without a word, as where one direction of a cable is broken: nothing ends."""
    made = [Peer(fleet, name, datagrams=True) for name in NAMES]
    hush(*made)
    a, b, c = [await peer.up() for peer in made]
    valve = await Valve(c.port).open()
    try:
        a.knows(b)
        b.knows(a, c)
        c.knows(b)
        a.directory.learn("c", Hint("127.0.0.1", valve.port, Found.STATIC))
        for peer in made:
            peer.run()
        pairs = [(a, b), (b, c), (a, c)]
        await until(lambda: all(is_linked(*pair) for pair in pairs), "all linked")
        valve.hold()
        await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
        await until_acked(a, {"b", "c"}, 8)
        assert c.mesh.frozen_by()
    finally:
        valve.let_go()
        await valve.cut()
        for peer in made:
            await peer.down()


async def own_red(peer: Peer) -> Message:
    return await peer.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))


async def test_what_is_carried_is_the_askers_own_and_bounded(peers: list[Peer]) -> None:
    a, b, c = peers
    b.knows(a, c)
    b.run()
    await until(lambda: is_linked(a, b) and is_linked(b, c), "linked")
    carry, _ = b.peering.operations()["POST", RELAY]
    mine, foreign = (await own_red(a)).raw.encode(), (await own_red(c)).raw.encode()
    with pytest.raises(UntrustedError, match="a message of c"):
        await carry("a", {"to": "c"}, foreign)
    with pytest.raises(NotFoundError, match="names no 'd'"):
        await carry("a", {"to": "d"}, mine)
    with pytest.raises(BadInputError):
        await carry("a", {"to": "c"}, mine[:-9])
    assert await carry("a", {"to": "c"}, mine)
    for _ in range(ASKED - 4):
        with contextlib.suppress(NotFoundError):
            await carry("a", {"to": "d"}, mine)
    with pytest.raises(BusyError):
        await carry("a", {"to": "c"}, mine)


async def test_a_helper_cannot_ack_in_place_of_another(fleet: TestFleet) -> None:
    """b answers with its own ack for c, then refuses in c's name: the message stays owed."""
    asked: list[bytes] = []

    class Liar(Peer):
        def operations(self) -> Operations:
            async def lie(_: str, __: object, raw: bytes) -> bytes:
                asked.append(raw)
                if len(asked) > 1:
                    raise UntrustedError("c does not want it")
                return await self.mesh.receive(raw)

            return {**super().operations(), ("POST", RELAY): (lie, MAX_MESSAGE_BYTES)}

    a, b = await Peer(fleet, "a").up(), await Liar(fleet, "b").up()
    try:
        a.knows(b)
        a.run()
        await until(lambda: is_linked(a, b), "linked")
        await own_red(a)
        await until(lambda: len(asked) > 2, "b was asked again")
        await until_acked(a, {"b"}, 8)
        assert [each.peer for each in await a.store.undelivered("c", a.clock.now())] == ["c"]
    finally:
        for peer in (a, b):
            await peer.down()
