"""`scripts/bench broadcast` in its small form: both sides run, and the figures have their names."""

from __future__ import annotations

import shutil

import pytest

from scripts.benchmarks.broadcast import compare, percentile
from scripts.lab.network import can_make_networks

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("serf") is None, reason="serf is not installed")
@pytest.mark.parametrize("loss", [0, 5])
async def test_three_nodes_spread_an_alarm_and_so_does_serf(loss: int) -> None:
    if loss and not can_make_networks():
        pytest.skip("network namespaces cannot be made here")
    samples = await compare(3, loss, 3)
    suffix = "n3_loss5" if loss else "n3"
    assert [each.figure for each in samples] == [f"p50_{suffix}_vs_serf", f"p99_{suffix}_vs_serf"]
    middle, late = samples
    assert 0 < middle.ours <= late.ours < 20_000
    assert 0 < middle.rival <= late.rival
    assert {side: len(times) for side, times in late.detail.items()} == {"ours": 3, "serf": 3}


def test_the_ninety_ninth_percentile_of_a_hundred_is_not_the_last() -> None:
    times = [float(number) for number in range(100, 0, -1)]
    assert (percentile(times, 50), percentile(times, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7
