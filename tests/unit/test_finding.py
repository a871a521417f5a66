"""Peers that find each other with little to go by, on real sockets, and what is said of those that do not."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from agent.cli.peers import describe_peers
from agent.peers.dialling import LOCAL_NETWORK, Race, Room, why
from agent.peers.directory import Found, Hint
from agent.peers.interfaces import Interface, choose, read_interfaces, told_addresses
from agent.peers.listing import (
    FailedAddress,
    Looked,
    PeerLine,
    PeersReport,
    PeerState,
)
from agent.peers.mdns import hosts_of
from agent.peers.whereabouts import Told, Whereabouts
from scripts.minifleet.ports import free_port
from shared.errors import RollcallError
from shared.messages import Red, RedKind
from shared.report import NodeAddresses
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_datagrams import until_acked
from tests.unit.test_mesh import Peer, until, with_files


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path))


@pytest.fixture
async def peers(fleet: TestFleet) -> AsyncIterator[list[Peer]]:
    """They know nothing of each other."""
    made = [Peer(fleet, name, datagrams=True) for name in fleet.names]
    try:
        for peer in made:
            await peer.up()
        yield made
    finally:
        await asyncio.gather(*(peer.down() for peer in made))


async def state(peer: Peer, other: str) -> PeerLine:
    return next(each for each in (await peer.discovering.listing()).peers if each.name == other)


async def test_one_static_peer_is_enough(peers: list[Peer]) -> None:
    """a knows only b, b knows only c."""
    a, b, c = peers
    a.knows(b)
    b.knows(c)
    for peer in peers:
        peer.run(discover=True)
    await until(lambda: a.links.get("c") is not None, "a is linked with c")
    await until(lambda: c.links.get("a") is not None, "and c with a")
    line = await state(a, "c")
    assert line.state is PeerState.LINKED
    assert line.rtt_ms is not None
    assert line.rtt_ms > 0
    assert f"127.0.0.1:{c.port}" in line.hints["peer"]


async def test_two_that_know_the_same_third_find_each_other(peers: list[Peer]) -> None:
    """b was dialled by both, and knows where they are from themselves only."""
    a, b, c = peers
    a.knows(b)
    c.knows(b)
    for peer in peers:
        peer.run(discover=True)
    await until(lambda: a.links.get("c") is not None, "a is linked with c")
    await until(lambda: {each.host for each in b.directory.good("a")} == {"127.0.0.1"}, "told")


async def test_the_coordinators_list_is_enough(peers: list[Peer]) -> None:
    a, _, c = peers
    for peer in peers:
        peer.run(discover=True)
    await until(lambda: bool(c.discovering.addresses()), "c knows its door")
    a.discovering.take_list(
        NodeAddresses(tag="1", nodes={"c": [*c.discovering.addresses(), "nonsense"]})
    )
    assert a.discovering.heard_list == "1"
    await until(lambda: a.links.get("c") is not None, "a is linked with c")
    assert (await state(a, "c")).found == "coordinator"
    a.discovering.take_list(NodeAddresses(tag="2", nodes={}))
    assert a.directory.good("c"), "an address that was good stays"


async def test_blocked_is_told_from_empty(peers: list[Peer]) -> None:
    a, b, c = peers
    a.run(discover=True)
    assert (await state(a, "b")).state is PeerState.EMPTY
    a.directory.learn("b", Hint("127.0.0.1", free_port(), Found.STATIC))
    a.directory.learn("c", Hint("127.0.0.1", b.port, Found.MDNS))
    await until(lambda: a.directory.failures("b") and a.directory.failures("c"), "both were tried")
    refused, wrong = await state(a, "b"), await state(a, "c")
    assert (refused.state, refused.failures[0].reason) == (PeerState.BLOCKED, "refused")
    assert wrong.state is PeerState.BLOCKED
    assert wrong.failures[0].reason.startswith("TLS refused"), "b answers there, and is not c"
    assert c.links.get("a") is None


async def test_the_door_for_peers_listens_on_both_families(fleet: TestFleet) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    async with AsyncExitStack() as stack:
        a, b = (Peer(fleet, name, datagrams=True, host="::") for name in ("a", "b"))
        for peer in (a, b):
            await peer.up()
            stack.push_async_callback(peer.down)
        red = await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason="x"))
        link = [a for each in read_interfaces() for a in each.addresses if "%" in a]
        for host in ("127.0.0.1", "::1", *link[:1]):
            a.directory._hints.clear()
            a.directory.learn("b", Hint(host, b.port, Found.STATIC))
            red = await a.mesh.broadcast(Red(kind=RedKind.STUCK, reason=host))
            await until_acked(a, {"b"})
            assert red.key in [each.key for each in b.mesh.frozen_by()], "as a datagram"
            assert await a.transport.ask("b", "GET", "/v1/peer/roster/number"), "as a request"
        a.run()
        await until(
            lambda: a.links.get("b") is not None, "linked by IPv6, by the link's where there is one"
        )


def hints(*hosts: str) -> list[Hint]:
    return [Hint(host, 1, Found.MDNS) for host in hosts]


async def test_an_address_that_leads_nowhere_does_not_hold_up_the_next() -> None:
    told: list[tuple[str, str]] = []
    ended: list[str] = []

    async def connect(hint: Hint) -> str:
        if hint.host == "deaf":
            await asyncio.Event().wait()
        if hint.host == "closed":
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no")
        return hint.host

    async def discard(host: str) -> None:
        ended.append(host)

    def failed(hint: Hint, error: Exception) -> None:
        told.append((hint.host, why(error)))

    room = Room(2)
    race = Race(connect, discard, failed, room)
    async with asyncio.timeout(20):
        won = await race.run(hints("deaf", "closed", "good", "never"))
    assert won is not None
    assert won[1] == "good"
    assert told == [("closed", "refused")]
    assert room.take(), "what was taken is given back"
    assert not ended


async def test_beyond_the_first_attempt_there_is_room_for_so_many() -> None:
    running = most = 0

    async def connect(_: Hint) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.7)
            raise TimeoutError
        finally:
            running -= 1

    async def discard(_: str) -> None:
        raise AssertionError

    room = Room(1)
    races = [Race(connect, discard, lambda hint, error: None, room) for _ in range(4)]
    found = await asyncio.gather(*(race.run(hints("x", "y", "z")) for race in races))
    assert found == [None] * 4
    assert most == 5, "each has its first, and one place is left for all"


@pytest.mark.parametrize(
    ("error", "platform", "said"),
    [
        (TimeoutError(), "linux", "timed out"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "linux", "refused"),
        (OSError(errno.EHOSTUNREACH, "x"), "linux", "no route"),
        (OSError(errno.ENETUNREACH, "x"), "darwin", "no route"),
        (ssl.SSLError(1, "bad certificate"), "linux", "TLS refused"),
        (aiohttp.ServerDisconnectedError(), "linux", "protocol: "),
        (OSError(errno.EMFILE, "Too many open files"), "linux", "Too many open files"),
    ],
)
def test_why_in_a_few_words(error: Exception, platform: str, said: str) -> None:
    assert why(error, platform).startswith(said)


def test_a_mac_that_blocks_the_local_network_says_so() -> None:
    assert LOCAL_NETWORK in why(OSError(errno.EHOSTUNREACH, "No route to host"), "darwin")


LO = Interface("lo", 1, ("127.0.0.1", "::1"), False)
ETH = Interface("eth0", 2, ("10.0.0.2", "fd00::2", "fe80::2%eth0"), True)
VPN = Interface("utun0", 3, ("10.9.0.2",), False)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ([], ["eth0"]),
        (["utun0"], ["utun0"]),
        (["10.9.0.2", "lo"], ["lo", "utun0"]),
        (["fe80::2"], ["eth0"]),
        (["eth9"], []),
    ],
)
def test_interfaces_are_chosen_by_name_or_address(wanted: list[str], names: list[str]) -> None:
    assert [each.name for each in choose([LO, ETH, VPN], wanted)] == names


def test_an_address_leaves_the_others_of_its_interface_out() -> None:
    assert choose([ETH], ["10.0.0.2"])[0].addresses == ("10.0.0.2",)
    assert choose([LO, VPN], []) == [LO], "a host without a network talks with itself"


def test_what_peers_are_told_to_dial() -> None:
    told = told_addresses([ETH, VPN], host="::", advertise=None)
    assert told == ["10.0.0.2", "10.9.0.2", "fd00::2", "fe80::2%eth0"]
    assert told_addresses([ETH], host="0.0.0.0", advertise=None) == ["10.0.0.2"]  # noqa: S104
    assert told_addresses([ETH], host="10.0.0.9", advertise=None) == ["10.0.0.9"]
    assert told_addresses([ETH], host="::", advertise="192.0.2.1") == ["192.0.2.1"]


def test_an_address_of_the_link_gets_the_interface_it_was_heard_on() -> None:
    assert hosts_of(["10.0.0.3", "fe80::3%2", "::"], [ETH]) == ["10.0.0.3", "fe80::3%eth0"]
    assert hosts_of(["fe80::3"], [ETH, LO]) == ["fe80::3%eth0", "fe80::3%lo"]
    assert hosts_of(["224.0.0.1", "fd00::3"], [ETH]) == ["fd00::3"]


def test_this_host_has_a_loopback() -> None:
    assert any("127.0.0.1" in each.addresses and not each.carries for each in read_interfaces())


def line(name: str, state: PeerState, **more: object) -> PeerLine:
    return PeerLine.from_value({"name": name, "state": state, **more})


def report(*lines: PeerLine, looked: Looked, platform: str = "linux") -> PeersReport:
    return PeersReport(
        node="a",
        at=10_000.0,
        peers=list(lines),
        looked=looked,
        addresses=["10.0.0.1:7465"],
        platform=platform,
    )


def test_the_listing_in_words() -> None:
    said = report(
        line(
            "b",
            PeerState.LINKED,
            address="10.0.0.2:7465",
            found="mdns",
            since=2_800.0,
            rtt_ms=0.84,
        ),
        line(
            "cc",
            PeerState.BLOCKED,
            last_reached=9_700.0,
            hints={"mdns": ["10.0.0.3:7465"], "peer": ["10.0.0.3:7465", "10.0.0.4:7465"]},
            failures=[FailedAddress(address="10.0.0.3:7465", reason="refused", at=1.0)],
        ),
        line("d", PeerState.EMPTY),
        looked=Looked(mdns=True, interfaces=["eth0"], static=1, coordinator=False),
    )
    assert describe_peers(said) == [
        "a: 1 of 3 peers linked; reachable at 10.0.0.1:7465",
        "  b   linked   10.0.0.2:7465 (mdns), 0.8 ms, for 2 h",
        "  cc  blocked  last reached 5 min ago",
        "               10.0.0.3:7465 (mdns, peer): refused",
        "               10.0.0.4:7465 (peer): not tried yet",
        "  d   empty    no address is known: mDNS on eth0 has not named it, none of 1 static peers,"
        " coordinator not reached",
    ]


@pytest.mark.parametrize(
    ("looked", "said"),
    [
        (Looked(mdns=False, coordinator=True), "mDNS is off, no static peers, the coordinator's"),
        (Looked(mdns=True, trouble="no interface eth9 is up"), "mDNS does not work (no interface"),
    ],
)
def test_where_it_was_looked(looked: Looked, said: str) -> None:
    assert said in describe_peers(report(line("b", PeerState.EMPTY), looked=looked))[1]


def test_a_mac_that_reaches_nobody_is_told_of_local_network_privacy() -> None:
    looked = Looked(mdns=True, interfaces=["en0"])
    alone = report(line("b", PeerState.EMPTY), looked=looked, platform="darwin")
    assert "LaunchDaemon" in describe_peers(alone)[-1]
    fine = report(line("b", PeerState.LINKED), looked=looked, platform="darwin")
    assert not any("LaunchDaemon" in each for each in describe_peers(fine))


async def test_a_peer_that_lies_about_others_costs_little(peers: list[Peer]) -> None:
    """Names outside the roster are not kept, and of each peer only so many addresses."""
    a, b, _ = peers
    whereabouts = a.discovering._whereabouts
    assert isinstance(whereabouts, Whereabouts)
    lies = {f"x{number}": ["10.0.0.1:1"] for number in range(2000)}
    for start in range(0, 400, 8):
        addresses = [f"10.1.{start // 250}.{start % 250 + n}:1" for n in range(8)]
        whereabouts._take("b", Told(own=[], others={**lies, "c": addresses, "a": addresses}))
    assert len(a.directory.candidates("c")) == 8
    assert list(a.directory._hints) == ["c"]
    with pytest.raises(RollcallError):
        Told.from_value({"own": ["10.0.0.1:1"] * 9})
    assert b.name not in a.directory._hints
