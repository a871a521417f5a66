"""Fixtures for every test: a blocking call on the event loop fails the test that makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only calls that our own modules make count; tests themselves may block."""
    if "fleet" in request.keywords or "openclaw" in request.keywords:
        yield
        return
    buster = BlockBuster(scanned_modules=["agent", "coordinator", "shared"])
    for name in (
        "os.stat",
        "os.access",
        "os.path.islink",
        "os.unlink",
        "os.mkdir",
        "os.path.abspath",
    ):
        if name in buster.functions:
            del buster.functions[name]
    buster.activate()
    try:
        yield
    finally:
        buster.deactivate()


class ManualClock:
    """Time that a test moves. `sleep` returns when somebody has advanced far enough."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._waiters: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._monotonic + seconds, future))
        await future

    @property
    def awaited(self) -> bool:
        """Whether somebody sleeps; work in a thread takes no time of this clock."""
        return bool(self._waiters)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds
        due = [each for each in self._waiters if each[0] <= self._monotonic]
        self._waiters = [each for each in self._waiters if each[0] > self._monotonic]
        for _, future in due:
            if not future.done():
                future.set_result(None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
