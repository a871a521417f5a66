"""Numbers as a line of small bars, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from shared.report import Trend

BARS = "▁▂▃▄▅▆▇█"
NOTHING = " "
FLAT = 0.02
"""A series that varies by less than this part of its highest value is drawn flat: noise is not a mountain."""
MIB = 1 << 20

TITLES = {
    "memory_bytes": "memory",
    "tasks_per_minute": "tasks/min",
    "start_p95_ms": "p95",
    "queue_depth": "queue",
    "loop_p99_ms": "loop lag",
}


def sparkline(values: Sequence[float | None]) -> str:
    """One character each, from the lowest to the highest; a space where nothing was read."""
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING * len(values)
    low, high = min(known), max(known)
    span = high - low
    if span <= abs(high) * FLAT:
        return "".join(NOTHING if value is None else BARS[0] for value in values)
    top = len(BARS) - 1
    return "".join(
        NOTHING if value is None else BARS[round((value - low) / span * top)] for value in values
    )


def in_words(value: float | None, unit: str | None) -> str:
    """A number as people read it; bytes as MiB, whether by themselves or by the second."""
    if value is None:
        return "-"
    if unit in ("bytes", "bytes/s"):
        return f"{value / MIB:.{1 if abs(value) < 10 * MIB else 0}f} {unit.replace('bytes', 'MiB')}"
    return f"{value + 0.0:.4g} {unit or ''}".rstrip()  # never "-0"


def describe_trends(trends: list[Trend]) -> list[str]:
    """A line for each: what it is, the last hour, the newest value, and between what it was."""
    lines = []
    for trend in trends:
        known = [value for value in trend.values if value is not None]
        if not known:
            continue
        low, high = (in_words(value, trend.unit) for value in (min(known), max(known)))
        between = "" if low == high else f" ({low} to {high})"
        title = TITLES.get(trend.name, trend.name)
        lines.append(
            f"{title:<10}{sparkline(trend.values)} {in_words(known[-1], trend.unit)}{between}"
        )
    return lines
