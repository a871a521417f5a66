"""Cohorts of workers as the API shows them (seed 004)."""

from __future__ import annotations

from enum import StrEnum

from shared.nodes import Word
from shared.wire import NodeName, Reason, Wire


class CohortStatus(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"
    DRAINED = "drained"
    """No worker of it takes work or has any in hand: its processes may be stopped."""
    SILENT = "silent"
    """No worker of it is heard of."""


class CohortView(Wire):
    """One build of one queue. Workers are counted by what they said last; those that are not heard of are in
    `silent_workers` and in no other count. `blocked` is the work of a build that no live worker has: it stays in
    the gateways that accepted it, and is counted here until one of them is back."""

    queue: Word
    build_id: Word
    status: CohortStatus
    drain_intent: bool = False
    drained_by: str | None = None
    drained_at: float | None = None
    active_workers: int = 0
    draining_workers: int = 0
    silent_workers: int = 0
    nodes: list[NodeName] = []
    in_flight: int = 0
    waiting: int = 0
    blocked: int = 0
    blocked_age_s: float = 0
    """How old the oldest of the blocked work is that is known to wait."""
    notes: list[Reason] = []
    """What workers wait for, by name."""


class CohortAnswer(Wire):
    """`warnings` are what the setting `validation` would refuse where it is `fail`."""

    cohort: CohortView
    warnings: list[Reason] = []
