"""What a probe brings back, and what a probe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.readiness import CheckStatus


@dataclass(frozen=True)
class Reading:
    """`facts` go into the comparable part, `raw` into the evidence; `series` are numbers that history keeps, by
    name; `at` is wall time."""

    status: CheckStatus
    reason: str = ""
    observed: float | str | None = None
    unit: str | None = None
    limit: float | str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    series: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0
    monotonic: float = 0.0


def unknown(reason: str) -> Reading:
    return Reading(CheckStatus.UNKNOWN, reason)


class Probe(Protocol):
    """`period_s` is how often it reads by itself; older than `stale_after_s` a reading is unknown.
    `timeout_s` bounds one read; a late probe is an unknown one."""

    id: str
    period_s: float
    timeout_s: float
    stale_after_s: float

    async def read(self) -> Reading: ...
