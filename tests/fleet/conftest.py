"""One fleet of real processes, with the stand-in for OpenClaw, that the tests of a module share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace

OLD, NEW = "2026.7.35", "2026.9.6"
TIMEOUT_S = 600.0
"""Several fleets may start at the same time, on two cores."""


@dataclass
class Ready:
    """A fleet that runs the old release; `old` and `new` are release ids."""

    fleet: MiniFleet
    old: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/fleet" in str(item.path):
            item.add_marker(pytest.mark.fleet)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@asynccontextmanager
async def ready_fleet() -> AsyncIterator[Ready]:
    """Static peers: mDNS is the demo's matter. Torn down whatever the test did."""
    fleet = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False)
    try:
        await fleet.open()
        yield Ready(fleet, await fleet.install(OLD))
    finally:
        await fleet.close()


@pytest.fixture
async def ready() -> AsyncIterator[Ready]:
    async with ready_fleet() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Ready]:
    """One fleet for the tests of a module, which run in their order and leave it as the next one needs it."""
    async with ready_fleet() as made:
        yield made
