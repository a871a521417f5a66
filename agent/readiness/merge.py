"""Readings to one document. Pure: what is missing, late or unknown is never green (DESIGN.md, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.readiness.reading import Reading
from shared.messages import Verdict
from shared.readiness import (
    Check,
    CheckStatus,
    Comparable,
    ReadinessDocument,
    evidence_sha256,
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
) -> ReadinessDocument:
    """`judged` are the checks of guards that look back further than one reading."""
    checks = [_check(probe, readings.get(probe.id), monotonic) for probe in expected]
    comparable = compare(readings)
    checks += [_versions_agree(comparable), *judged]
    status, reason = verdict(checks)
    return ReadinessDocument(
        node=node,
        status=status,
        reason=reason,
        at=now,
        checks=checks,
        comparable=comparable,
        ready_probe_sha256=comparable.ready_probe_sha256,
        evidence_sha256=evidence_sha256({name: each.raw for name, each in readings.items()}),
    )


def _check(probe: Expected, reading: Reading | None, monotonic: float) -> Check:
    if reading is None:
        return Check(id=probe.id, status=CheckStatus.UNKNOWN, reason="not read yet")
    age = max(0.0, monotonic - reading.monotonic)
    status, reason = reading.status, reading.reason
    if age > probe.stale_after_s:
        status = CheckStatus.UNKNOWN
        reason = f"read {age:.0f} s ago; older than {probe.stale_after_s:.0f} s says nothing"
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
    return Comparable.model_validate({**empty, **{k: v for k, v in facts.items() if k in names}})


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


def verdict(checks: list[Check]) -> tuple[Verdict, str]:
    """Red if any check fails, unknown if any is unknown, green when all pass or warn."""
    for status, outcome in (
        (CheckStatus.FAIL, Verdict.RED),
        (CheckStatus.UNKNOWN, Verdict.UNKNOWN),
    ):
        bad = [check for check in checks if check.status is status]
        if bad:
            return outcome, "; ".join(f"{check.id}: {check.reason}" for check in bad)[:2000]
    return Verdict.GREEN, ""
