"""Shapes for small pictures, as numbers: templates draw them as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.report import Trend
from shared.sparkline import FLAT, TITLES, in_words

WIDTH, HEIGHT = 240.0, 36.0
MIN_POINTS_FOR_SLOPE = 3


@dataclass(frozen=True)
class Sparkline:
    """`lines` are the points of each stretch without a gap; `dots` stretches of one point. `says` is the picture in
    words. `slope` goes from corner to corner of the trend, where there is one."""

    title: str
    newest: str
    says: str
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    slope: str = ""
    ceiling: float | None = None


def sparkline_of(trend: Trend, ceiling: float | None = None) -> Sparkline | None:
    """None where nothing was read. `ceiling` is a limit in the trend's own unit, drawn where it is in sight."""
    known = [value for value in trend.values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    if ceiling is not None and ceiling <= high * 2:
        high = max(high, ceiling)
    if high - low <= abs(high) * FLAT:
        low, high = low - abs(high) * FLAT - 1, high + abs(high) * FLAT + 1
    places = [
        None if value is None else _place(at, len(trend.values), value, low, high)
        for at, value in enumerate(trend.values)
    ]
    lines, dots = _stretches(places)
    newest = in_words(known[-1], trend.unit)
    span = f"{in_words(min(known), trend.unit)} to {in_words(max(known), trend.unit)}"
    title = TITLES.get(trend.name, trend.name)
    drawn = None
    if ceiling is not None and low <= ceiling <= high:
        drawn = _y(ceiling, low, high)
    return Sparkline(
        title=title,
        newest=newest,
        says=f"{title} in the last hour: {span}, now {newest}",
        lines=lines,
        dots=dots,
        slope=_slope([place for place in places if place is not None]),
        ceiling=drawn,
    )


def _place(at: int, count: int, value: float, low: float, high: float) -> tuple[float, float]:
    return (round(at * WIDTH / max(1, count - 1), 1), _y(value, low, high))


def _y(value: float, low: float, high: float) -> float:
    return round(HEIGHT - (value - low) / (high - low) * HEIGHT, 1)


def _stretches(
    places: Sequence[tuple[float, float] | None],
) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    lines: list[str] = []
    dots: list[tuple[float, float]] = []
    run: list[tuple[float, float]] = []
    for place in [*places, None]:
        if place is not None:
            run.append(place)
            continue
        if len(run) == 1:
            dots.append(run[0])
        elif run:
            lines.append(" ".join(f"{x:g},{y:g}" for x, y in run))
        run = []
    return tuple(lines), tuple(dots)


def _slope(places: Sequence[tuple[float, float]]) -> str:
    """The median of the slopes between all pairs (Theil-Sen, as the leak guard has it), through the median point."""
    if len(places) < MIN_POINTS_FOR_SLOPE:
        return ""
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0]) for at, a in enumerate(places) for b in places[at + 1 :]
    ]
    slope = _median(slopes)
    level = _median([y - slope * x for x, y in places])
    begin, end = places[0][0], places[-1][0]
    return f"{begin:g},{level + slope * begin:.1f} {end:g},{level + slope * end:.1f}"


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
