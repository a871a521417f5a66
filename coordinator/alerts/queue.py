"""What is dropped first when a receiver takes nothing for long. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.alerts.model import Change


@dataclass(frozen=True)
class Queued:
    """`id` rises with the time."""

    id: int
    change: Change


def victims(waiting: Sequence[Queued], over: int) -> list[int]:
    """The ids of `over` of them: the oldest first, ends last. Without its end an alert stays open at the receiver for
    ever; an end of what it never heard of does no harm."""
    ordered = sorted(waiting, key=lambda each: (each.change is Change.RESOLVED, each.id))
    return [each.id for each in ordered[:over]]
