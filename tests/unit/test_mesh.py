"""Peers in one process, over real sockets and real mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tuf.api.metadata import Root

from agent.clearing import OperatorClears
from agent.config import PeerConfig
from agent.dialler import Dialler
from agent.discovering import Discovering
from agent.peer_api import PeerApi
from agent.peering import Peering
from agent.peers.asked import Operations
from agent.peers.directory import Directory, Found, Hint
from agent.peers.gossip import Gossip
from agent.peers.links import Links
from agent.peers.overlay import Overlay
from agent.peers.transport import Transport
from agent.readiness.publishing import Published
from agent.store import Store
from shared.clock import Clock, SystemClock
from shared.errors import BadInputError, ConflictError, NotFoundError, UntrustedError
from shared.http import RefusedError
from shared.listener import Server
from shared.messages import (
    Clear,
    Message,
    Proven,
    Red,
    RedKind,
    open_message,
    sign_message,
)
from shared.tls import server_context
from tests.support.trustkit import TestFleet, make_fleet


class NoRepository:
    async def serve(self, path: str) -> bytes:
        raise NotFoundError(path)


def no_document() -> Published:
    raise BadInputError("not asked for here")


class Peer:
    def __init__(
        self,
        fleet: TestFleet,
        name: str,
        clock: Clock | None = None,
        *,
        datagrams: bool = False,
        host: str = "127.0.0.1",
        config: PeerConfig | None = None,
    ) -> None:
        self.config = config or PeerConfig(sync_every=0.2)
        self.fleet, self.name, self.datagrams = fleet, name, datagrams
        self.clock = clock or SystemClock()
        self.host = host
        self.trust = fleet.trust(name)
        self.layout = fleet.layout(name)
        self.directory = Directory()
        self.heard: list[Message] = []
        self.up_links: list[str] = []
        self.lost_links: list[str] = []
        self.root: Root | None = None
        self.stack = AsyncExitStack()
        self.port = 0

    async def up(self) -> Peer:
        self.store = await Store.open(self.layout.database)
        self.stack.push_async_callback(self.store.close)
        self.dialler = Dialler(self.layout.tls)
        self.stack.push_async_callback(self.dialler.close)
        config = self.config
        overlay = Overlay(self.trust, links=config.links, full_mesh_below=config.full_mesh_below)
        self.links = Links(self.trust, self.directory, self.dialler, SystemClock(), overlay)
        self.transport = Transport(self.directory, self.dialler, self.links.get)
        self.asked: list[str] = []

        async def newer_fleet(peer: str) -> None:
            self.asked.append(peer)

        self.gossip = Gossip(
            self.trust,
            self.transport,
            self.clock,
            newer_fleet,
            overlay.chosen,
            every_s=config.sync_every,
        )
        self.peering = Peering(
            config,
            self.trust,
            self.store,
            self.transport,
            self.directory,
            self.links,
            SystemClock(),
            epoch=await self.store.next_epoch(SystemClock().now()),
            on_message=self.heard.append,
            on_change=lambda: None,
        )
        await self.peering.open(self.stack)
        self.mesh = self.peering.mesh
        context = server_context(self.layout.tls, require_client=True)
        self.liveness = self.peering.liveness
        self.clears = OperatorClears(
            self.trust,
            self.store,
            self.mesh,
            self.transport,
            SystemClock(),
            self.operators,
            overlay.chosen,
            every_s=config.sync_every,
        )
        self.discovering = Discovering(
            PeerConfig(host=self.host, mdns=False),
            self.layout,
            self.trust,
            self.directory,
            self.links,
            SystemClock(),
            on_found=self.mesh.peer_found,
            has_list=lambda: False,
        )
        await self.discovering.open(self.stack)
        door = PeerApi(
            self.trust,
            self.mesh,
            self.gossip,
            NoRepository(),
            no_document,
            more=[self.operations(), self.clears.operations(), self.discovering.operations()],
        )

        def up(peer: str) -> None:
            self.peering.link_up(peer)
            self._link_up(peer)

        def lost(peer: str) -> None:
            self.lost_links.append(peer)
            self.peering.link_lost(peer)

        self.links.open(door.answers, on_up=up, on_lost=lost)
        app = door.application(self.links.accept)
        server = Server(app, self.host, self.port, context)
        await server.start()
        self.port = server.port
        if self.datagrams:
            await self.peering.listen(self.host, self.port)
        self.stack.push_async_callback(server.stop)
        self.stack.push_async_callback(self.links.close)
        return self

    def operations(self) -> Operations:
        return self.peering.operations()

    async def operators(self) -> Root:
        """Who may sign for this fleet."""
        if self.root is None:
            raise UntrustedError("no operator has signed this fleet")
        return self.root

    def _link_up(self, peer: str) -> None:
        self.up_links.append(peer)
        self.discovering.link_up(peer)

    def run(self, *, discover: bool = False) -> None:
        tasks = [
            asyncio.create_task(work.run()) for work in (self.peering, self.gossip, self.clears)
        ]
        if discover:
            tasks.append(asyncio.create_task(self.discovering.run(self.port)))

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.stack.push_async_callback(end)

    async def down(self) -> None:
        await self.stack.aclose()

    def knows(self, *others: Peer) -> None:
        for other in others:
            self.directory.learn(other.name, Hint("127.0.0.1", other.port, Found.STATIC))


async def until(condition: object, what: str) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path))


def with_files(fleet: TestFleet) -> TestFleet:
    for name in fleet.names:
        fleet.layout(name)
    return fleet


@pytest.fixture
async def peers(fleet: TestFleet) -> AsyncIterator[list[Peer]]:
    made = [await Peer(fleet, name).up() for name in fleet.names]
    for peer in made:
        peer.knows(*(other for other in made if other is not peer))
    yield made
    for peer in made:
        await peer.down()


async def test_a_red_reaches_every_peer_and_is_acked_by_each(peers: list[Peer]) -> None:
    a, b, c = peers
    for peer in peers:
        peer.run()
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    await until(lambda: b.mesh.frozen_by() and c.mesh.frozen_by(), "both are frozen")
    assert [each.key for each in b.mesh.frozen_by()] == [red.key]
    assert not a.mesh.frozen_by(), "its own red does not freeze a node's way back"

    async def acks() -> dict[str, float]:
        return (await a.mesh.recent_broadcasts())[0].acked_ms

    async with asyncio.timeout(60):
        while set(await acks()) != {"b", "c"}:
            await asyncio.sleep(0.02)
    await a.mesh.clear(red.key, "repaired")
    await until(lambda: not b.mesh.frozen_by() and not c.mesh.frozen_by(), "the freeze is over")


async def test_who_was_away_learns_on_return_from_another(peers: list[Peer]) -> None:
    """c is down when a turns red, and a is gone when c comes back: b tells it."""
    a, b, c = peers
    await c.down()
    a.run()
    b.run()
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    await until(b.mesh.frozen_by, "b is frozen")
    await a.down()
    back = Peer(c.fleet, "c")
    back.port = c.port
    await back.up()
    back.knows(a, b)
    back.run()
    await until(back.mesh.frozen_by, "c learnt it")
    assert back.mesh.frozen_by()[0].key == red.key
    await back.down()


async def test_what_was_owed_is_delivered_after_a_restart_of_the_origin(peers: list[Peer]) -> None:
    a, b, c = peers
    await b.down()
    await c.down()
    red = await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="x"))
    await a.down()
    again = Peer(a.fleet, "a")
    await again.up()
    listener = Peer(b.fleet, "b")
    await listener.up()
    again.knows(listener)
    assert [each.key for each in again.mesh.own_reds()] == [red.key]
    again.run()
    await until(listener.mesh.frozen_by, "b got it in the end")
    later = await again.mesh.broadcast(Red(kind=RedKind.STUCK, reason="y"))
    assert later.payload.epoch > red.payload.epoch
    await again.down()
    await listener.down()


async def test_a_message_counts_once_and_is_acked_every_time(peers: list[Peer]) -> None:
    """Fault 20: duplicates and late arrivals make one event."""
    a, b, _ = peers
    first = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="one"))
    second = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="two"))
    for message in (second, first, second, first, first):
        ack = open_message(await b.mesh.receive(message.raw.encode()), b.trust.roster)
        assert ack.ref == message.key
    assert [message.key for message in b.heard] == [second.key, first.key]
    assert len(b.mesh.frozen_by()) == 2


async def test_what_has_expired_or_is_refused_does_not_hold_up_what_comes_after(
    peers: list[Peer],
) -> None:
    a, b, _ = peers
    claim = Proven(
        order="a1b2c3d4:a", release="1" * 64, ready_probe_sha256="0" * 64, nonce="0" * 64
    )
    await a.mesh.broadcast(claim, expires_in_s=-1)
    b.trust.roster = b.fleet.roster(revoked=("a",), epoch=2)
    await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="refused while a is revoked"))
    a.run()
    await asyncio.sleep(0.5)
    b.trust.roster = b.fleet.roster(epoch=3)
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="later"))
    await until(lambda: red.key in {each.key for each in b.mesh.frozen_by()}, "it arrived")
    assert all(message.payload.body.type != "proven" for message in b.heard)


async def test_a_replay_after_a_restart_and_after_a_day_is_dropped(peers: list[Peer]) -> None:
    """Fault 24: a red that was cleared does not freeze anybody again, and an old claim wakes nobody."""
    a, b, _ = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))
    clear = await a.mesh.broadcast(Clear(ref=red.key, reason="over"))
    claim = Proven(
        order="a1b2c3d4:a", release="1" * 64, ready_probe_sha256="0" * 64, nonce="0" * 64
    )
    yesterday = await a.mesh.broadcast(claim, expires_in_s=-86400)
    for message in (red, clear):
        await b.mesh.receive(message.raw.encode())
    await b.down()
    again = await Peer(b.fleet, "b").up()
    await again.mesh.receive(red.raw.encode())
    assert not again.mesh.frozen_by()
    with pytest.raises(UntrustedError, match="time is over"):
        await again.mesh.receive(yesterday.raw.encode())
    assert again.mesh.dropped == {"expired": 1}
    assert again.heard == []
    await again.down()


async def test_after_losing_its_database_a_node_is_heard_again(peers: list[Peer]) -> None:
    a, b, _ = peers
    first = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="one"))
    await b.mesh.receive(first.raw.encode())
    await a.down()
    await asyncio.to_thread(a.layout.database.unlink)
    again = await Peer(a.fleet, "a").up()
    second = await again.mesh.broadcast(Red(kind=RedKind.READINESS, reason="two"))
    await b.mesh.receive(second.raw.encode())
    assert second.key != first.key
    assert len(b.mesh.frozen_by()) == 2
    await again.down()


async def test_a_clear_that_overtakes_its_red_still_ends_it(peers: list[Peer]) -> None:
    a, b, _ = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))
    clear = await a.mesh.broadcast(Clear(ref=red.key, reason="over"))
    await b.mesh.receive(clear.raw.encode())
    await b.mesh.receive(red.raw.encode())
    assert not b.mesh.frozen_by()


async def test_forged_foreign_and_meddling_messages_are_dropped_and_counted(
    peers: list[Peer],
) -> None:
    """Faults 23 and 26."""
    a, b, c = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))
    await b.mesh.receive(red.raw.encode())
    meddling = await c.mesh.broadcast(Clear(ref=red.key, reason="all fine"))
    forged = sign_message(red.payload, c.trust.key)
    for raw in (meddling.raw, forged.raw, "{}", red.raw[:-9]):
        with pytest.raises((UntrustedError, BadInputError)):
            await b.mesh.receive(raw.encode())
    assert b.mesh.frozen_by()
    assert sum(b.mesh.dropped.values()) == 4
    with pytest.raises(ConflictError, match="clear it there"):
        await b.mesh.clear(red.key, "not mine")


async def test_an_own_red_that_a_peer_holds_is_neither_news_nor_dropped(peers: list[Peer]) -> None:
    a, b = peers[:2]
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))
    await b.mesh.learn(red.raw.encode())
    (held,) = await b.mesh.events()
    await a.mesh.learn(held.encode())
    assert a.mesh.dropped == {}
    assert a.heard == []


async def test_an_own_red_that_was_lost_comes_back_and_can_be_ended(peers: list[Peer]) -> None:
    a, b = peers[:2]
    a.run()
    b.run()
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="down"))
    await until(b.mesh.frozen_by, "b is frozen")
    await a.down()
    await asyncio.to_thread(a.layout.database.unlink)
    again = Peer(a.fleet, "a")
    await again.up()
    again.knows(b)
    again.run()
    await until(again.mesh.own_reds, "b tells it")
    assert again.mesh.own_reds()[0].key == red.key
    await again.mesh.clear(red.key, "over")
    await until(lambda: not b.mesh.frozen_by(), "b is free")
    await again.down()


async def test_after_pruning_an_old_message_does_not_come_back(peers: list[Peer]) -> None:
    """Fault 24: a replay after a day, or a year, is an old message."""
    a, b, _ = peers
    red = await a.mesh.broadcast(Red(kind=RedKind.READINESS, reason="x"))
    clear = await a.mesh.broadcast(Clear(ref=red.key, reason="over"))
    for message in (red, clear):
        await b.mesh.receive(message.raw.encode())
    await b.store.uploaded([red.sha256, clear.sha256])
    assert await b.mesh.prune(SystemClock().now() + 1) == 2
    with pytest.raises(UntrustedError, match="long closed"):
        await b.mesh.receive(red.raw.encode())


async def test_a_node_that_is_not_in_the_roster_is_not_answered(
    peers: list[Peer], tmp_path: Path
) -> None:
    a, b, _ = peers
    other = await asyncio.to_thread(lambda: with_files(make_fleet(tmp_path / "other", ("a", "b"))))
    stranger = Peer(other, "a")
    await stranger.up()
    stranger.knows(b)
    with pytest.raises(Exception, match="no answer"):
        await stranger.transport.ask("b", "GET", "/v1/peer/events")
    b.trust.roster = b.fleet.roster(revoked=("a",), epoch=2)
    with pytest.raises(RefusedError, match="roster"):
        await a.transport.ask("b", "GET", "/v1/peer/events")
    await stranger.down()


async def test_a_node_cannot_answer_under_anothers_name(peers: list[Peer]) -> None:
    """The address of c, dialled as b: its certificate does not carry that name."""
    a, _, c = peers
    a.directory = Directory()
    a.directory.learn("b", Hint("127.0.0.1", c.port, Found.MDNS))
    a.transport = Transport(a.directory, a.dialler, lambda peer: None)
    with pytest.raises(Exception, match="no answer"):
        await a.transport.ask("b", "GET", "/v1/peer/events")


class FastClock(SystemClock):
    """A minute ahead of everybody else's."""

    def now(self) -> float:
        return super().now() + 60


async def test_peers_measure_whose_clock_is_wrong(fleet: TestFleet) -> None:
    clocks = {"b": FastClock()}
    a, b, c = peers = [await Peer(fleet, name, clocks.get(name)).up() for name in fleet.names]
    try:
        for peer in peers:
            peer.knows(*(other for other in peers if other is not peer))
            peer.run()
        await until(lambda: all(len(peer.gossip.offsets()) == 2 for peer in peers), "all asked")
        assert abs(a.gossip.offsets()["b"] - 60) < 2
        assert abs(a.gossip.offsets()["c"]) < 2
        assert all(abs(offset + 60) < 2 for offset in b.gossip.offsets().values())
        assert set(c.gossip.offsets()) == {"a", "b"}
    finally:
        for peer in peers:
            await peer.down()
