"""Readings to one document. Pure: what is missing, late or unknown is never green (DESIGN.md, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.readiness.reading import Reading
from shared.readiness import (
    Check,
    CheckStatus,
    Comparable,
    ReadinessDocument,
    evidence_sha256,
    steady,
    verdict,
)
from shared.wire import short


@dataclass(frozen=True)
class Expected:
    """A probe that must have spoken, and how old its word may be."""

    id: str
    stale_after_s: float


def merge(
    node: str,
    expected: list[Expected],
    readings: Mapping[str, Reading],
    judged: list[Check],
    *,
    now: float,
    monotonic: float,
    platform: str | None = None,
) -> ReadinessDocument:
    """`judged` are the checks of guards that look back further than one reading."""
    checks = [_check(probe, readings.get(probe.id), monotonic) for probe in expected]
    comparable = compare(readings)
    checks += [_versions_agree(comparable), *judged]
    status, reason = verdict(checks)
    return ReadinessDocument(
        node=node,
        platform=platform,
        status=status,
        reason=reason,
        at=now,
        checks=checks,
        comparable=comparable,
        ready_probe_sha256=comparable.ready_probe_sha256,
        evidence_sha256=evidence_sha256({name: each.raw for name, each in readings.items()}),
    )


def next_stale(
    expected: list[Expected], readings: Mapping[str, Reading], monotonic: float
) -> float | None:
    """When, on the monotonic clock, the next of these readings will be too old to say anything."""
    ends = (
        readings[probe.id].monotonic + probe.stale_after_s
        for probe in expected
        if probe.id in readings
    )
    return min((end for end in ends if end >= monotonic), default=None)


def _check(probe: Expected, reading: Reading | None, monotonic: float) -> Check:
    if reading is None:
        return Check(id=probe.id, status=CheckStatus.UNKNOWN, reason="not read yet")
    age = max(0.0, monotonic - reading.monotonic)
    status, reason = reading.status, reading.reason
    if age > probe.stale_after_s:
        status = CheckStatus.UNKNOWN
        reason = f"the last reading is older than {probe.stale_after_s:.0f} s and says nothing"
    return Check(
        id=probe.id,
        status=status,
        observed=reading.observed,
        unit=reading.unit,
        limit=reading.limit,
        at=reading.at,
        age_s=round(age, 1),
        reason=short(reason),
    )


def compare(readings: Mapping[str, Reading]) -> Comparable:
    """The comparable part, from the facts that probes brought."""
    facts: dict[str, object] = {}
    for reading in readings.values():
        facts.update(reading.facts)
    names = Comparable.model_fields
    empty: dict[str, object] = dict.fromkeys(names)
    empty.update(plugins={}, doctor=[])
    found = Comparable.model_validate({**empty, **{k: v for k, v in facts.items() if k in names}})
    return found.model_copy(update={"doctor": steady(found.doctor)})


def _versions_agree(comparable: Comparable) -> Check:
    """Running is what is on disk; a different version serving is a failure whatever else is green."""
    disk, running = comparable.core_on_disk, comparable.core_running
    if disk is None or running is None:
        missing = "running" if running is None else "on-disk"
        return Check(
            id="version", status=CheckStatus.UNKNOWN, reason=f"the {missing} version is not known"
        )
    if disk != running:
        reason = f"{running} is running; {disk} is on disk"
        return Check(
            id="version", status=CheckStatus.FAIL, observed=running, limit=disk, reason=reason
        )
    return Check(id="version", status=CheckStatus.PASS, observed=running, limit=disk)
