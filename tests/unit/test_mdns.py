"""mDNS on the real loopback: found by name, and a flood of strangers costs little (fault 34)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from zeroconf import DNSOutgoing, DNSPointer, DNSService, IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
from zeroconf.const import _CLASS_IN, _FLAGS_QR_RESPONSE, _TYPE_PTR, _TYPE_SRV

from agent.peers.directory import MAX_HINTS_PER_PEER, Directory, Found, Hint
from agent.peers.interfaces import Interface, Reader, read_interfaces
from agent.peers.mdns import ASK_AGAIN_S, MAX_RESOLVING, MAX_STRANGERS, SERVICE, Discovery
from scripts.minifleet.multicast import multicast_works
from shared.clock import SystemClock

FLEET = "ab" * 32
FAKES = 10_000
GROUP = ("224.0.0.251", 5353)


def discovery(
    directory: Directory, name: str, wanted: list[str], read: Reader = read_interfaces
) -> Discovery:
    return Discovery(
        directory,
        lambda: wanted,
        lambda peer: None,
        SystemClock(),
        fleet=FLEET,
        name=name,
        read=read,
    )


@pytest.fixture
async def heard() -> AsyncIterator[tuple[Directory, Discovery]]:
    """A node that wants `b`, on a loopback that carries multicast."""
    if not await multicast_works():
        pytest.skip("this host has no multicast on its loopback")
    directory = Directory()
    node = discovery(directory, "a", ["b"])
    assert await node.start(port=7465, interfaces=["127.0.0.1"], advertise=None)
    task = asyncio.create_task(node.run())
    yield directory, node
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await node.stop()


def flood(names: list[str]) -> None:
    """Answers that nobody asked for, as anyone on the network can send them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for start in range(0, len(names), 20):
            out = DNSOutgoing(_FLAGS_QR_RESPONSE)
            for name in names[start : start + 20]:
                alias = f"{name}-{FLEET[:8]}.{SERVICE}"
                out.add_answer_at_time(DNSPointer(SERVICE, _TYPE_PTR, _CLASS_IN, 4500, alias), 0)
                out.add_answer_at_time(
                    DNSService(alias, _TYPE_SRV, _CLASS_IN, 120, 0, 0, 7465, "evil.local."), 0
                )
            for packet in out.packets():
                sender.sendto(packet, GROUP)


async def test_ten_thousand_fake_peers_cost_little(heard: tuple[Directory, Discovery]) -> None:
    directory, node = heard
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    for start in range(0, FAKES, 500):
        await asyncio.to_thread(flood, [f"x{number}" for number in range(start, start + 500)])
        await asyncio.sleep(0.02)
        assert len(node._resolving) <= MAX_RESOLVING
    assert len(node._strangers) <= MAX_STRANGERS
    assert all(directory.candidates(f"x{number}") == [] for number in range(0, FAKES, 97))
    assert process.memory_info().rss - before < 96 << 20
    peer = discovery(Directory(), "b", ["a"])
    assert await peer.start(port=7466, interfaces=["127.0.0.1"], advertise=None)
    try:
        async with asyncio.timeout(60):
            while not directory.candidates("b"):
                await asyncio.sleep(0.05)
    finally:
        await peer.stop()
    assert directory.candidates("b") == [Hint("127.0.0.1", 7466, Found.MDNS)]


def test_false_addresses_for_a_peer_are_bounded_and_push_out_no_good_one() -> None:
    directory = Directory()
    good, fixed = Hint("10.0.0.1", 1, Found.MDNS), Hint("10.0.0.2", 1, Found.STATIC)
    for hint in (good, fixed):
        directory.learn("b", hint)
    directory.reached("b", good)
    for number in range(FAKES):
        directory.learn("b", Hint(f"10.1.{number // 250}.{number % 250}", 1, Found.MDNS))
    found = directory.candidates("b")
    assert found[0] == good
    assert fixed in found
    assert len(found) == MAX_HINTS_PER_PEER + 2
    directory.lost("b")
    directory.learn("b", Hint("10.9.9.9", 1, Found.MDNS))
    assert directory.candidates("b")[:2] == [good, fixed], "tried first when it comes back"


LO = Interface("lo", 1, ("127.0.0.1",), False)


async def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not within {seconds:g} s: {what}")


async def test_after_a_change_of_the_network_it_is_found_again(
    heard: tuple[Directory, Discovery],
) -> None:
    """Fault 21: b's interface goes, and comes back with another index."""
    directory, _ = heard
    network = [LO]
    b = discovery(Directory(), "b", ["a"], lambda: list(network))
    assert await b.start(port=7466, interfaces=[], advertise=None)
    running = asyncio.create_task(b.run())
    try:
        await until(lambda: directory.candidates("b"), "b is found")
        network.clear()
        await until(lambda: not b.interfaces, "nothing is in use any more")
        assert b.trouble == "no interface is up"
        directory._hints.clear()
        network.append(Interface("lo", 7, ("127.0.0.1",), False))
        await until(lambda: directory.candidates("b"), "b is found again")
        assert b.trouble == ""
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await b.stop()


async def test_a_node_that_starts_without_a_network_is_found_once_there_is_one(
    heard: tuple[Directory, Discovery],
) -> None:
    directory, _ = heard
    network: list[Interface] = []
    b = discovery(Directory(), "b", ["a"], lambda: list(network))
    assert not await b.start(port=7466, interfaces=["lo"], advertise=None)
    assert b.trouble == "no interface lo is up"
    running = asyncio.create_task(b.run())
    try:
        network.append(LO)
        await until(lambda: directory.candidates("b"), "b is found")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await b.stop()


async def test_two_that_claim_one_name_are_both_tried_and_told_of(
    heard: tuple[Directory, Discovery],
) -> None:
    directory, _ = heard
    first, second = (discovery(Directory(), "b", ["a"]) for _ in range(2))
    try:
        for port, each in ((7466, first), (7467, second)):
            assert await each.start(port=port, interfaces=["127.0.0.1"], advertise=None)
        await until(lambda: len(directory.candidates("b")) == 2, "both are tried")
        await until(lambda: second.alerts, "the operator is told")
        assert second.alerts == [
            f"mDNS: another host on this network claims the name b-{FLEET[:8]};"
            f" this node is announced as b-{FLEET[:8]}-2"
        ]
        await until(lambda: first.alerts, "and that of the other")
    finally:
        await asyncio.gather(first.stop(), second.stop())
    assert {each.port for each in directory.candidates("b")} == {7466, 7467}, (
        "goodbyes mean nothing"
    )


async def test_a_name_of_another_fleet_is_nobodys(heard: tuple[Directory, Discovery]) -> None:
    directory, node = heard
    stranger = Discovery(
        Directory(), list, lambda peer: None, SystemClock(), fleet="cd" * 32, name="b"
    )
    try:
        assert await stranger.start(port=7466, interfaces=["127.0.0.1"], advertise=None)
        await asyncio.sleep(1)
    finally:
        await stranger.stop()
    assert not directory.candidates("b")
    assert not node._strangers


async def test_an_address_whose_announcement_was_lost_is_asked_for(
    heard: tuple[Directory, Discovery],
) -> None:
    """b answers with another address from now on, and has told nobody."""
    directory, _ = heard

    def info(address: str) -> AsyncServiceInfo:
        label = f"b-{FLEET[:8]}"
        return AsyncServiceInfo(
            SERVICE,
            f"{label}.{SERVICE}",
            parsed_addresses=[address],
            port=7466,
            server=f"{label}.local.",
        )

    b = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        await (await b.async_register_service(info("127.0.0.2")))
        await until(lambda: directory.candidates("b"), "b is found")
        b.zeroconf.registry.async_update(info("127.0.0.3"))
        await until(
            lambda: Hint("127.0.0.3", 7466, Found.MDNS) in directory.candidates("b"),
            "and where it is now",
            3 * ASK_AGAIN_S,
        )
    finally:
        await b.async_close()
