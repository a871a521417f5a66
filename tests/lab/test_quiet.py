"""No false silence where packets are lost; the hour is `python -m scripts.lab.quiet`."""

from __future__ import annotations

import asyncio
import time

import pytest

from scripts.lab.quiet import watch
from tests.lab.conftest import Make


@pytest.mark.parametrize(
    "seconds",
    [20.0, pytest.param(600.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
async def test_every_tenth_packet_is_lost_and_nobody_is_called_silent(
    make: Make, seconds: float
) -> None:
    fleet = await make(6)
    await asyncio.gather(*(fleet.network.lose(name, 0.1) for name in fleet.names))
    assert await watch(fleet, time.monotonic() + seconds) == 0
