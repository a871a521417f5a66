"""Fixtures for every test: a blocking call on the event loop fails the test that makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


LONG_FIRST = ("tests/openclaw", "tests/fleet", "tests/page", "tests/lab", "tests/unit")
SPREAD = {
    "tests/fleet/test_demo.py",
    "tests/fleet/test_fleet.py",
    "tests/fleet/test_stolen.py",
    "tests/unit/test_api_schema.py",
}
"""Files whose tests share nothing, and together take longer than one process should."""
AS_ONE = "tests/openclaw/"
"""A real gateway takes a core while it starts: one test of them at a time, beside others that mostly wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins early."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    place = item.path.relative_to(ROOT).as_posix()
    return next((at for at, each in enumerate(LONG_FIRST) if place.startswith(each)), 0)


class ByFile(LoadScopeScheduling):
    """The tests of a file run in one process, in their order: many files have a fleet that their tests share."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.partition("::")[0]
        if place.startswith(AS_ONE):
            return AS_ONE
        return nodeid if place in SPREAD else place


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


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
