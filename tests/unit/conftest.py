"""Fixtures that several unit tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.coordinatorkit import Running, run_coordinator
from tests.support.launchd.emulator import Launchd, emulated_launchd
from tests.support.launchdkit import Rig, make_rig


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with run_coordinator(tmp_path) as made:
        yield made


@pytest.fixture
def launchd() -> Iterator[Launchd]:
    with emulated_launchd() as made:
        yield made


@pytest.fixture
async def rig(launchd: Launchd, tmp_path: Path) -> Rig:
    return await make_rig(launchd, tmp_path)
