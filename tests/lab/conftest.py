"""Real networks for tests: namespaces, with everything on them that a cable carries."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from scripts.debian import MissingError, need
from scripts.lab.fleet import LabFleet
from scripts.lab.network import Network, why_no_networks

Make = Callable[..., Awaitable[LabFleet]]


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    reason = why_no_networks()
    try:
        need("iptables", "iptables")
    except MissingError as error:
        reason = reason or str(error)
    if reason:
        pytest.skip(f"NO LAB HERE, NO FAULT OF A REAL NETWORK WAS TRIED: {reason}")


@asynccontextmanager
async def running_fleet(root: Path, size: int, *words: str) -> AsyncIterator[LabFleet]:
    """`words` are options of every node. What the nodes have logged is shown where the test fails."""
    names = [f"n{number}" for number in range(size)]
    try:
        async with Network(names) as network, LabFleet(root, names, network, words) as fleet:
            yield fleet
    except BaseException:
        for log in sorted(root.glob("*/logs/node.log")):
            text = await asyncio.to_thread(log.read_text)
            sys.stderr.write(f"--- {log.relative_to(root)}\n{text[-2000:]}\n")
        raise


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        async def build(size: int, *words: str) -> LabFleet:
            return await stack.enter_async_context(running_fleet(tmp_path, size, *words))

        yield build
