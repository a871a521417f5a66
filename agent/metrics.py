"""`/metrics`: the readiness document, the upgrade and the agent itself, as Prometheus reads them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from typing import Final

from agent.upgrade.phases import Phase
from shared.exposition import Kind, Process, family, gauge, process_families, states
from shared.freezing import By
from shared.messages import Verdict
from shared.readiness import CheckStatus, ReadinessDocument
from shared.report import NodeReport

NOT_FOUND: Final = "none"


def render(report: NodeReport, document: ReadinessDocument, weight: int, process: Process) -> str:
    """`weight` is the node's share of traffic in percent."""
    families = (
        *_about(report, weight),
        *_readiness(document),
        *_upgrade(report),
        *_peers(report),
        *process_families(process, "the agent"),
    )
    return "".join(families)


def _about(report: NodeReport, weight: int) -> Iterator[str]:
    labels = {"version": report.agent_version, "python": platform.python_version()}
    yield family("rollcall_build_info", Kind.GAUGE, "The agent.", [(labels, 1.0)])
    openclaw = {
        "release": report.release or "",
        "on_disk": report.version_on_disk or "",
        "running": report.version_running or "",
    }
    yield family("rollcall_openclaw_info", Kind.GAUGE, "What the node runs.", [(openclaw, 1.0)])
    yield gauge(
        "rollcall_traffic_weight_ratio",
        "The share of its traffic that the node asks for.",
        weight / 100,
    )


def _readiness(document: ReadinessDocument) -> Iterator[str]:
    yield family(
        "rollcall_readiness",
        Kind.GAUGE,
        "The merged verdict; unknown is never green.",
        states("status", Verdict, document.status),
    )
    yield family(
        "rollcall_check_status",
        Kind.GAUGE,
        "What each check says.",
        [
            ({"check": check.id, **labels}, value)
            for check in document.checks
            for labels, value in states("status", CheckStatus, check.status)
        ],
    )
    for name, what, field in (
        ("rollcall_check_value", "What each check measured, in its unit.", "observed"),
        ("rollcall_check_limit", "Where too much begins for each check, in its unit.", "limit"),
    ):
        yield family(
            name,
            Kind.GAUGE,
            what,
            [
                ({"check": check.id, "unit": check.unit or ""}, value)
                for check in document.checks
                if isinstance(value := getattr(check, field), float)
            ],
        )
    yield family(
        "rollcall_check_age_seconds",
        Kind.GAUGE,
        "How old each check's reading is.",
        [({"check": each.id}, each.age_s) for each in document.checks if each.age_s is not None],
    )


def _upgrade(report: NodeReport) -> Iterator[str]:
    phase = None if report.upgrade is None else report.upgrade.phase
    yield family(
        "rollcall_upgrade_phase",
        Kind.GAUGE,
        "Where the last upgrade of this node is or ended; all 0 where there was none.",
        states("phase", Phase, phase),
    )
    own = sum(red.startswith(f"{report.node}:") for red in report.open_reds)
    counts = [({"origin": "own"}, own), ({"origin": "peer"}, len(report.open_reds) - own)]
    yield family("rollcall_open_reds", Kind.GAUGE, "Reds that this node holds open.", counts)
    yield gauge(
        "rollcall_frozen",
        "1 while a peer's red or a freeze by hand keeps this node from moving.",
        bool(report.freezes),
    )
    yield family(
        "rollcall_freezes",
        Kind.GAUGE,
        "What keeps this node from moving.",
        [({"by": by}, sum(each.by is by for each in report.freezes)) for by in By],
    )


def _peers(report: NodeReport) -> Iterator[str]:
    found = Counter(how or NOT_FOUND for how in report.peers.values())
    yield family(
        "rollcall_peers",
        Kind.GAUGE,
        "Peers of the roster, by how they were found.",
        [({"found": how}, float(found[how])) for how in sorted({NOT_FOUND, *found})],
    )
    left = sum(absence.left for absence in report.away.values())
    yield family(
        "rollcall_away_peers",
        Kind.GAUGE,
        "Peers that are not there: silent, or gone with a goodbye.",
        [({"how": "left"}, left), ({"how": "silent"}, len(report.away) - left)],
    )
    yield family(
        "rollcall_dropped_messages_total",
        Kind.COUNTER,
        "Peer messages that were not accepted, by reason.",
        [({"reason": reason}, float(count)) for reason, count in sorted(report.dropped.items())],
    )
