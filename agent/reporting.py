"""What this node says of itself: the same report for the coordinator, the CLI and the status page."""

from __future__ import annotations

from typing import Any, TypeVar

import agent
from agent.peers.directory import Directory
from agent.peers.mesh import Mesh
from agent.store import Blocked
from agent.trust import Trust
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from shared.freezing import Freeze
from shared.messages import Message
from shared.nodes import Cohort, NodeHealth
from shared.protocol import SPOKEN
from shared.readiness import CheckStatus, ReadinessDocument
from shared.report import (
    MAX_BLOCKED,
    MAX_CONCERNS,
    Absence,
    Asker,
    Broadcast,
    Concern,
    Loss,
    NodeReport,
    ReadinessSummary,
    SaidCheck,
    Standing,
    Trend,
    UpgradeReport,
    WayBack,
)
from shared.versions import as_word
from shared.wire import Wire, short

W = TypeVar("W", bound=Wire)

SHOWN_REDS = 100
"""The first of them freeze as well as all; the report has a bound."""

SHOWN_AWAY = 64
_FIRST = (CheckStatus.FAIL, CheckStatus.UNKNOWN, CheckStatus.WARN)


def build_report(  # noqa: PLR0913 - one report out of everything that it shows
    trust: Trust,
    mesh: Mesh,
    directory: Directory,
    document: ReadinessDocument,
    record: Record | None,
    *,
    freezes: list[Freeze],
    progress: str,
    waiting: str,
    withdrawn: list[str],
    urls: dict[str, str],
    broadcasts: list[Broadcast],
    alerts: list[str],
    certificate_expires: float | None,
    blocked: list[Blocked],
    standing: Standing | None,
    balancers: list[Asker],
    weight: int,
    weight_wanted: int | None,
    weight_waits: str,
    trends: list[Trend],
    checks: list[SaidCheck],
    away: dict[str, Absence],
    addresses: list[str],
    health: NodeHealth,
    cohort: Cohort | None,
) -> NodeReport:
    compared = document.comparable
    return NodeReport(
        node=trust.name,
        agent_version=agent.__version__,
        protocol=SPOKEN,
        release=compared.release,
        version_on_disk=as_word(compared.core_on_disk),
        version_running=as_word(compared.core_running),
        readiness=ReadinessSummary(
            status=document.status,
            reason=document.reason,
            ready_probe_sha256=document.ready_probe_sha256,
            evidence_sha256=document.evidence_sha256,
            platform=document.platform,
            concerns=concerns(document),
            checks=checks,
        ),
        upgrade=None if record is None else upgrade_report(record, progress),
        waiting=waiting,
        withdrawn=withdrawn,
        frozen_by=[red.key for red in mesh.frozen_by()][:SHOWN_REDS],
        freezes=freezes,
        open_reds=[_say(red) for red in mesh.open_reds()][:SHOWN_REDS],
        broadcasts=broadcasts,
        peers={name: directory.how(name) for name in trust.peer_names()},
        away=dict(list(away.items())[:SHOWN_AWAY]),
        urls=urls,
        alerts=alerts[:16],
        dropped=dict(mesh.dropped),
        roster_epoch=trust.roster.epoch,
        certificate_expires=certificate_expires,
        blocked=[each.release for each in blocked[-MAX_BLOCKED:]],
        standing=standing,
        balancers=balancers,
        weight=weight,
        weight_wanted=weight_wanted,
        weight_waits=weight_waits,
        trends=trends,
        addresses=addresses,
        health=health,
        cohort=cohort,
    )


def upgrade_report(record: Record, progress: str) -> UpgradeReport:
    """`version_after` is what the node ended on: the target, or after a rollback what was before."""
    outage = record.fact(Phase.ROLLING_BACK, "outage_s")
    if outage is None:
        outage = record.fact(Phase.RESTARTED, "outage_s")
    back = record.fact(Phase.ROLLING_BACK, "running")
    return UpgradeReport(
        order=record.target.order,
        release=record.target.release,
        phase=record.phase,
        detail="" if record.over else progress,
        outcome=record.phase if record.over else None,
        reason=record.reason,
        ordered=record.ordered,
        version_before=as_word(record.fact(Phase.CLAIMED, "version_before")),
        version_after=as_word(back or record.fact(Phase.RESTARTED, "running")),
        began=record.began,
        ended=record.ended,
        outage_s=outage,
        spent_s=record.spent,
        attested_by=record.fact(Phase.ATTESTED, "attested_by") or [],
        way_back=_read(WayBack, record.fact(Phase.VERIFIED, "way_back")),
        lost=_read(Loss, record.fact(Phase.ROLLING_BACK, "lost")),
    )


def concerns(document: ReadinessDocument) -> list[Concern]:
    """What fails before what is not known, and that before what only warns."""
    found = [each for each in document.checks if each.status is not CheckStatus.PASS]
    found.sort(key=lambda each: _FIRST.index(each.status))
    return [
        Concern(id=short(each.id, 64), status=each.status, reason=short(each.reason, 300))
        for each in found[:MAX_CONCERNS]
    ]


def _read(model: type[W], value: Any) -> W | None:
    return None if value is None else model.from_value(value)


def _say(red: Message) -> str:
    reason = getattr(red.payload.body, "reason", "")
    return f"{red.payload.origin}: {reason} [{red.key}]"[:500]
