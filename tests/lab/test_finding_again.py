"""Fault 21 on real interfaces: hosts that change their address, lose their interface, or have IPv6 alone. They have
nothing but mDNS to go by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.peers.listing import PeerState
from scripts.lab.fleet import LabFleet
from scripts.lab.network import SUBNET
from tests.lab.conftest import Make

FOUND_AGAIN_S = 60.0
HERE, THERE = "n0", "n1"


async def sees(fleet: LabFleet, at: str, peer: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = (await fleet.nodes[at].do("peers"))["peers"]
    return next(each for each in found if each["name"] == peer)


async def where(fleet: LabFleet) -> str:
    return str((await sees(fleet, HERE, THERE))["address"])


async def linked(fleet: LabFleet) -> bool:
    lines = [await sees(fleet, HERE, THERE), await sees(fleet, THERE, HERE)]
    return all(each["state"] == PeerState.LINKED for each in lines)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > FOUND_AGAIN_S:
            pytest.fail(f"not within {FOUND_AGAIN_S:g} s: {what}")
        await asyncio.sleep(0.2)


async def test_found_again_after_a_change_of_address_and_of_the_interface(make: Make) -> None:
    fleet = await make(2, "--discover")

    async def at_its_new_address() -> bool:
        return f"{SUBNET}.77:" in await where(fleet) and await linked(fleet)

    async def is_lost() -> bool:
        return not await linked(fleet)

    await fleet.network.move(THERE, f"{SUBNET}.77")
    await fleet.network.forget(THERE, 6)
    await until(at_its_new_address, "at its new address")
    await fleet.network.unplug(THERE)
    await until(is_lost, "the link is lost")
    await fleet.network.plug(THERE, f"{SUBNET}.78")
    await until(lambda: linked(fleet), "the interface is back")


async def test_ipv6_of_the_link_alone_is_enough(make: Make) -> None:
    fleet = await make(2, "--discover")
    for name in (HERE, THERE):
        await fleet.network.forget(name, 4)

    async def by_ipv6() -> bool:
        lines = [await sees(fleet, HERE, THERE), await sees(fleet, THERE, HERE)]
        return await linked(fleet) and any("fe80::" in each["address"] for each in lines)

    await until(by_ipv6, "linked by IPv6")
