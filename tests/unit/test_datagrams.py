"""Alarms as signed datagrams, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.peers.datagrams import MAX_DATAGRAM, MESSAGE
from agent.peers.directory import Found, Hint
from agent.store import StoreError
from shared.messages import Red, RedKind
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_mesh import Peer, until, with_files


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path))


@pytest.fixture
async def peers(fleet: TestFleet) -> AsyncIterator[list[Peer]]:
    """They do not run: no connection is used, so what arrives came as a datagram."""
    made = [await Peer(fleet, name, datagrams=True).up() for name in fleet.names]
    for peer in made:
        peer.knows(*(other for other in made if other is not peer))
    yield made
    for peer in made:
        await peer.down()


async def acked(peer: Peer) -> set[str]:
    return set((await peer.mesh.recent_broadcasts())[0].acked_ms)


async def until_acked(peer: Peer, names: set[str]) -> None:
    async with asyncio.timeout(60):
        while await acked(peer) != names:
            await asyncio.sleep(0.01)


async def test_a_red_arrives_and_is_acked_without_a_connection(peers: list[Peer]) -> None:
    a, b, c = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    await until_acked(a, {"b", "c"})
    assert [each.key for each in b.mesh.frozen_by()] == [red.key]
    await a.mesh.clear(red.key, "repaired")
    await until(lambda: not b.mesh.frozen_by() and not c.mesh.frozen_by(), "the freeze is over")
    assert len(b.heard) == len(c.heard) == 2, "sent more than once, heard once"


async def test_an_alarm_leaves_while_the_disk_still_writes_it(peers: list[Peer]) -> None:
    a, b = peers[:2]
    written = threading.Event()
    slow = asyncio.create_task(a.store.change(lambda _: written.wait(20)))
    sending = asyncio.create_task(a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="down")))
    await until(b.mesh.frozen_by, "b is frozen")
    assert not sending.done()
    written.set()
    await slow
    red = await sending
    assert [each.key for each in a.mesh.own_reds()] == [red.key]


async def test_an_alarm_that_cannot_be_written_is_out_once_and_can_be_ended(
    peers: list[Peer],
) -> None:
    a, b = peers[:2]
    await a.store.write("ALTER TABLE envelopes RENAME TO elsewhere")
    with pytest.raises(StoreError):
        await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="down"))
    await until(b.mesh.frozen_by, "b is frozen")
    (own,) = a.mesh.own_reds()
    with pytest.raises(StoreError):
        await a.mesh.clear(own.key, "over")
    await until(lambda: not b.mesh.frozen_by(), "b is free")
    assert not a.mesh.own_reds()


async def test_one_that_is_lost_is_sent_again(peers: list[Peer]) -> None:
    """b's address leads nowhere at first."""
    a, b, _ = peers
    good = a.directory.candidates("b")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        a.directory.reached("b", good)
        hints = a.directory._hints["b"]
        hints[:] = [Hint("127.0.0.1", deaf.getsockname()[1], Found.STATIC)]
        await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="x"))
        await until_acked(a, {"c"})
        assert not b.heard
        hints[:] = [good]
        await until_acked(a, {"b", "c"})


async def test_what_is_no_message_is_dropped_and_its_address_soon_not_listened_to(
    peers: list[Peer],
) -> None:
    _, b, _ = peers
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for content in (b"", b"RC1", b"hello", MESSAGE + b"x" * (MAX_DATAGRAM + 1)):
            stranger.sendto(content, ("127.0.0.1", b.port))
        await until(lambda: b.mesh.dropped["strange-datagram"] == 4, "of no known form")
        for _ in range(70):
            stranger.sendto(MESSAGE + b"{}", ("127.0.0.1", b.port))
            await asyncio.sleep(0.001)
        await until(lambda: b.mesh.dropped["too-many-datagrams"] > 0, "enough of that address")
    assert not b.heard
    assert not b.mesh.frozen_by()


async def test_one_that_does_not_fit_a_packet_takes_the_connection(peers: list[Peer]) -> None:
    a, b, _ = peers
    await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="x" * 1500))
    await asyncio.sleep(0.2)
    assert not b.heard
    a.run()
    await until(b.mesh.frozen_by, "over the connection")
