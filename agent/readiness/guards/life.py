"""Since when the gateway's present process runs: what it used before says nothing of what it leaks now."""

from __future__ import annotations

from itertools import pairwise

from agent.readiness.history import FULL_S, History, Sample

MEMORY = "memory_bytes"
STARTED = "gateway_started_at"
"""Wall seconds at which the gateway's process began, as its probe saw it."""
FALL = 0.3
GAP_S = 60.0


def born_at(history: History) -> float | None:
    """By the probe where it says; else by the last gap or fall of more than 30 % in the memory of the last hour.
    None where nothing was read yet."""
    started = history.newest(STARTED)
    if started is not None:
        return started.value
    samples = history.since(MEMORY, 0.0)
    born = samples[0].at if samples else None
    for before, after in pairwise(samples):
        if after.at - before.at > GAP_S or after.value < before.value * (1 - FALL):
            born = after.at
    return born


def warm_samples(history: History, warmup_s: float) -> list[Sample]:
    """The memory of this process since it has warmed up, of the last hour at most."""
    born = born_at(history)
    newest = history.newest(MEMORY)
    if born is None or newest is None:
        return []
    return history.since(MEMORY, max(born + warmup_s, newest.at - FULL_S))
