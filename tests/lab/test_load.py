"""Fault 41, shortened: many nodes in few processes, and a red every second."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lab.crowd import watch_crowd


@pytest.mark.alone
@pytest.mark.parametrize(
    ("nodes", "processes", "seconds"),
    [(12, 3, 20.0), pytest.param(60, 6, 120.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
async def test_a_red_every_second_is_delivered_in_time_and_leaves_nothing_behind(
    tmp_path: Path, nodes: int, processes: int, seconds: float
) -> None:
    seen = await watch_crowd(tmp_path, nodes, processes, seconds)
    assert seen.wanted == int(seconds) * (nodes - 1)
    assert not seen.faults(), str(seen)
