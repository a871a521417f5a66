"""mDNS on the real loopback: found by name, and a flood of strangers costs little (fault 34)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import psutil
import pytest
from zeroconf import DNSOutgoing, DNSPointer, DNSService
from zeroconf.const import _CLASS_IN, _FLAGS_QR_RESPONSE, _TYPE_PTR, _TYPE_SRV

from agent.peers.directory import MAX_HINTS_PER_PEER, Directory, Found, Hint
from agent.peers.mdns import MAX_RESOLVING, MAX_STRANGERS, SERVICE, Discovery
from scripts.minifleet.multicast import multicast_works
from shared.clock import SystemClock

FLEET = "ab" * 32
FAKES = 10_000
GROUP = ("224.0.0.251", 5353)


def discovery(directory: Directory, name: str, wanted: list[str]) -> Discovery:
    return Discovery(
        directory, lambda: wanted, lambda peer: None, SystemClock(), fleet=FLEET, name=name
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
        async with asyncio.timeout(20):
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
