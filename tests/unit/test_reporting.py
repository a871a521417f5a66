"""What a node says to the coordinator of the checks that do not pass."""

from __future__ import annotations

from agent.reporting import concerns
from shared.messages import Verdict
from shared.readiness import Check, CheckStatus, Comparable, ReadinessDocument
from shared.report import MAX_CONCERNS


def document(*checks: Check) -> ReadinessDocument:
    compared = Comparable(
        release=None,
        core_on_disk=None,
        core_running=None,
        plugins={},
        lock_sha256=None,
        tree_sha256=None,
        doctor=[],
        config_schema=None,
    )
    return ReadinessDocument(
        node="a",
        status=Verdict.GREEN,
        reason="",
        at=0,
        checks=list(checks),
        comparable=compared,
        ready_probe_sha256=compared.ready_probe_sha256,
        evidence_sha256="0" * 64,
    )


def test_what_fails_is_said_first_and_what_passes_is_not() -> None:
    checks = [
        Check(id="disk", status=CheckStatus.WARN, reason="9 % free"),
        Check(id="tree", status=CheckStatus.PASS),
        Check(id="clock", status=CheckStatus.UNKNOWN, reason="late"),
        Check(id="memory", status=CheckStatus.FAIL, reason="x" * 900),
    ]
    found = concerns(document(*checks))
    assert [each.id for each in found] == ["memory", "clock", "disk"]
    assert (len(found[0].reason), found[2].reason) == (300, "9 % free")


def test_a_report_stays_within_its_bound() -> None:
    many = [Check(id=f"check-{number}", status=CheckStatus.WARN) for number in range(100)]
    assert len(concerns(document(*many))) == MAX_CONCERNS
