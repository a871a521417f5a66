"""How fast a series rises: Theil-Sen's slope, with the bound below it that noise does not reach.

The slope is the median of the slopes between all pairs of points: almost a third of them may be anything. The lower
bound is Sen's, by Kendall's statistic. That interval takes the errors of two points for independent, which memory's are
not: it remembers what it did before. So a second test asks whether the rise is spread over the window: the differences
of neighbouring parts, which are independent even for a random walk, must have a mean far above their own scatter. A
single step, a rise that has ended and a saw with several teeth in the window all fail it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev

from agent.readiness.history import Sample

BLOCKS = 30
PARTS, LEAST_STEPS = 10, 7
LEAST_POINTS = 10
Z_99 = 2.576


@dataclass(frozen=True)
class Rise:
    """Of the series per second: `slope`, and `least`, which it has with 99.5 % certainty if its errors are
    independent. `spread` is by how many of its own standard errors the mean difference between parts is above 0."""

    slope: float
    least: float
    spread: float
    lasts: bool
    """Whether the last third of the window rises at half that slope or more."""
    span_s: float


def measure_rise(samples: list[Sample]) -> Rise | None:
    """Oldest first. None for fewer than ten points in time."""
    points = thin(samples, BLOCKS)
    if len(points) < LEAST_POINTS:
        return None
    slopes = sorted(_slopes(points))
    count = len(points)
    deviation = Z_99 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    least = slopes[max(0, math.floor((len(slopes) - deviation) / 2))]
    slope = median(slopes)
    tail = points[-max(4, count // 3) :]
    return Rise(
        slope=slope,
        least=least,
        spread=_spread(points),
        lasts=median(_slopes(tail)) >= slope / 2,
        span_s=samples[-1].at - samples[0].at,
    )


def thin(samples: list[Sample], blocks: int) -> list[Sample]:
    """The median of each of so many equal stretches of time, at the mean of its times; empty ones are left out."""
    if not samples:
        return []
    began, span = samples[0].at, samples[-1].at - samples[0].at
    if span <= 0:
        return samples[-1:]
    held: list[list[Sample]] = [[] for _ in range(blocks)]
    for each in samples:
        held[min(blocks - 1, int((each.at - began) / span * blocks))].append(each)
    return [
        Sample(fmean(each.at for each in block), median(each.value for each in block))
        for block in held
        if block
    ]


def _spread(points: list[Sample]) -> float:
    parts = thin(points, PARTS)
    steps = [b.value - a.value for a, b in pairwise(parts)]
    if len(steps) < LEAST_STEPS:
        return 0.0
    mean, scatter = fmean(steps), stdev(steps)
    if scatter == 0:
        return math.inf if mean > 0 else 0.0
    return mean / (scatter / math.sqrt(len(steps)))


def _slopes(points: list[Sample]) -> list[float]:
    """Between all pairs."""
    return [
        (b.value - a.value) / (b.at - a.at)
        for place, a in enumerate(points)
        for b in points[place + 1 :]
    ]
