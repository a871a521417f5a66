"""Slopes, and what keeps noise from looking like one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.readiness.guards.leak import CERTAIN
from agent.readiness.guards.slope import LEAST_POINTS, Rise, measure_rise
from agent.readiness.history import Sample


def rise_of(value: Callable[[float], float], seconds: float = 300, every: float = 5) -> Rise:
    times = [place * every for place in range(int(seconds / every) + 1)]
    found = measure_rise([Sample(1.8e9 + at, value(at)) for at in times])
    assert found is not None
    return found


def test_a_straight_line_is_its_slope() -> None:
    rise = rise_of(lambda at: 100 + 2 * at)
    assert rise.slope == pytest.approx(2)
    assert rise.least == pytest.approx(2)
    assert (rise.lasts, rise.span_s) == (True, 300)
    assert rise.spread > 1000
    flat = rise_of(lambda at: 100.0)
    assert (flat.slope, flat.least, flat.spread) == (0, 0, 0)


def test_too_few_points_have_no_slope() -> None:
    samples = [Sample(1.8e9 + place, float(place)) for place in range(LEAST_POINTS)]
    assert measure_rise(samples) is not None
    assert measure_rise(samples[1:]) is None
    assert measure_rise([]) is None
    assert measure_rise([Sample(1.8e9, float(place)) for place in range(50)]) is None


@given(seed=st.integers(0, 2**32), slope=st.floats(-3, 3))
def test_the_lower_bound_is_below_the_slope_and_one_wild_reading_in_ten_does_not_move_it(
    seed: int, slope: float
) -> None:
    random = Random(seed)  # noqa: S311
    calm = rise_of(lambda at: slope * at + random.gauss(0, 1))
    assert calm.least <= calm.slope
    assert calm.slope == pytest.approx(slope, abs=0.05)
    wild = rise_of(lambda at: slope * at + random.gauss(0, 1) + (900 if at % 50 == 0 else 0))
    assert wild.slope == pytest.approx(slope, abs=0.5)


def test_a_step_is_not_spread_over_the_window() -> None:
    def step(at: float) -> Rise:
        return rise_of(lambda now: 200.0 if now > at else 0.0)

    assert all(step(at).spread < 1.5 for at in (60, 150, 240))


def test_a_rise_that_has_ended_does_not_last() -> None:
    assert not rise_of(lambda at: min(at, 180.0)).lasts
    assert rise_of(lambda at: max(at, 120.0)).lasts


def test_a_random_walk_looks_certain_by_its_bound_and_not_by_its_spread() -> None:
    """Sen's interval believes in independent errors: that is why there is a second test."""
    rises = [rise_of(walk(seed)) for seed in range(200)]
    bounded = [rise for rise in rises if rise.least > 0]
    assert len(bounded) > 60
    assert len([rise for rise in bounded if rise.spread >= CERTAIN]) < 10


def walk(seed: int) -> Callable[[float], float]:
    random = Random(seed)  # noqa: S311
    steps = list(accumulate(random.gauss(0, 8) for _ in range(61)))
    return lambda at: steps[int(at / 5)]
