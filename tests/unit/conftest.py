"""Fixtures that several unit tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.coordinatorkit import Running, run_coordinator


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with run_coordinator(tmp_path) as made:
        yield made
