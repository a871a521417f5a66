"""What alerts rest on, of every node: little enough to be kept of thousands, and looked at every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from coordinator.health import LastWord, health_score
from shared.messages import Verdict
from shared.report import Concern, NodeReport, UpgradeReport


@dataclass(frozen=True, slots=True)
class Said:
    """Of a node's last report. `score` is its health score while it is heard of; `error_rate` in percent."""

    agent_version: str = ""
    version_on_disk: str | None = None
    version_running: str | None = None
    release: str | None = None
    platform: str | None = None
    ready_probe_sha256: str | None = None
    status: Verdict = Verdict.UNKNOWN
    reason: str = ""
    concerns: Sequence[Concern] = ()
    alerts: Sequence[str] = ()
    score: int | None = None
    error_rate: float | None = None
    upgrade: UpgradeReport | None = None
    certificate_expires: float | None = None

    @classmethod
    def of(cls, report: NodeReport) -> Self:
        ready = report.readiness
        word = LastWord(0.0, report.release, ready.status, report.upgrade, report.health)
        return cls(
            agent_version=sys.intern(report.agent_version),
            version_on_disk=_shared(report.version_on_disk),
            version_running=_shared(report.version_running),
            release=_shared(report.release),
            platform=_shared(ready.platform),
            ready_probe_sha256=_shared(ready.ready_probe_sha256),
            status=ready.status,
            reason=ready.reason,
            concerns=tuple(ready.concerns),
            alerts=tuple(report.alerts),
            score=health_score(word, 0.0),
            error_rate=None if report.health is None else report.health.error_rate,
            upgrade=report.upgrade,
            certificate_expires=report.certificate_expires,
        )


NOTHING_SAID = Said()


class Watched(NamedTuple):
    """A node now. `attested_by` as in NodeView."""

    joined: float
    heard: float | None
    health_score: int | None
    said: Said
    attested_by: Sequence[str] = ()


def watch(joined: float, heard: float | None, said: Said, now: float) -> Watched:
    """Without attestations."""
    silent = LastWord(heard).silent(now)
    score = None if heard is None else 0 if silent else said.score
    return Watched(joined, heard, score, said)


def _shared(text: str | None) -> str | None:
    """What many nodes say is there once."""
    return None if text is None else sys.intern(text)
