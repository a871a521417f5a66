"""What a node was like before an upgrade: kept by its journal, and what the new release is held against."""

from __future__ import annotations

from statistics import median

from agent.readiness.guards.life import MEMORY, warm_samples
from agent.readiness.history import FULL_S, History
from shared.wire import Sha256, Wire


class Baseline(Wire):
    """Medians of the last hour; None where nothing was read. Memory counts once the gateway has warmed up."""

    at: float
    release: Sha256 | None = None
    memory_bytes: float | None = None
    start_p95_ms: float | None = None
    run_p95_ms: float | None = None
    tasks_per_minute: float | None = None
    tasks_asked_per_minute: float | None = None
    loop_p99_ms: float | None = None
    new_errors: float | None = None
    """Lines of new error forms, at that moment."""


_OF_THE_HOUR = (
    "start_p95_ms",
    "run_p95_ms",
    "tasks_per_minute",
    "tasks_asked_per_minute",
    "loop_p99_ms",
)


def take_baseline(history: History, release: str | None, now: float, warmup_s: float) -> Baseline:
    found: dict[str, float] = {}
    warm = warm_samples(history, warmup_s)
    if warm:
        found[MEMORY] = median(each.value for each in warm)
    for name in _OF_THE_HOUR:
        if samples := history.since(name, now - FULL_S):
            found[name] = median(each.value for each in samples)
    errors = history.newest("new_errors")
    if errors is not None:
        found["new_errors"] = errors.value
    rounded = {name: round(value, 3) for name, value in found.items()}
    return Baseline(at=now, release=release, **rounded)
