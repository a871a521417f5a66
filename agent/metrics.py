"""`/metrics`: the readiness document, the upgrade and the agent itself, as Prometheus reads them.

The text is written here and not by prometheus-client: what is told lies in the report and the document already,
and a registry of prometheus-client beside them would be a second memory of it. That package would also cost each
agent 1.2 MB and 10 ms at its start, measured after the imports that an agent has anyway.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import psutil

from agent.upgrade.phases import Phase
from shared.freezing import By
from shared.messages import Verdict
from shared.readiness import CheckStatus, ReadinessDocument
from shared.report import NodeReport

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
NOT_FOUND: Final = "none"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = Mapping[str, str]
Value = tuple[Labels, float]


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True)
class Process:
    """Of the agent itself. The gateway's memory is a check of the document."""

    cpu_s: float
    resident_bytes: int
    virtual_bytes: int
    started: float
    open_fds: int


def read_process() -> Process:
    """Blocking."""
    me = psutil.Process()
    with me.oneshot():
        cpu, memory = me.cpu_times(), me.memory_info()
        return Process(
            cpu.user + cpu.system, memory.rss, memory.vms, me.create_time(), me.num_fds()
        )


def render(report: NodeReport, document: ReadinessDocument, weight: int, process: Process) -> str:
    """`weight` is the node's share of traffic in percent."""
    families = (
        *_about(report, weight),
        *_readiness(document),
        *_upgrade(report),
        *_peers(report),
        *_process(process),
    )
    return "".join(families)


def _family(name: str, kind: Kind, help_text: str, values: Iterable[Value]) -> str:
    """One metric with its samples; nothing at all where there is no sample."""
    lines = [f"{name}{_labels(labels)} {_number(value)}\n" for labels, value in values]
    if not lines:
        return ""
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n" + "".join(lines)


def _labels(labels: Labels) -> str:
    said = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def _states(label: str, states: Iterable[str], now: str | None) -> list[Value]:
    """A state as OpenMetrics has it: one sample for each that there is, 1 for the one that holds."""
    return [({label: state}, float(state == now)) for state in states]


def _gauge(name: str, help_text: str, value: float) -> str:
    return _family(name, Kind.GAUGE, help_text, [({}, value)])


def _about(report: NodeReport, weight: int) -> Iterator[str]:
    labels = {"version": report.agent_version, "python": platform.python_version()}
    yield _family("rollcall_build_info", Kind.GAUGE, "The agent.", [(labels, 1.0)])
    openclaw = {
        "release": report.release or "",
        "on_disk": report.version_on_disk or "",
        "running": report.version_running or "",
    }
    yield _family("rollcall_openclaw_info", Kind.GAUGE, "What the node runs.", [(openclaw, 1.0)])
    yield _gauge(
        "rollcall_traffic_weight_ratio",
        "The share of its traffic that the node asks for.",
        weight / 100,
    )


def _readiness(document: ReadinessDocument) -> Iterator[str]:
    yield _family(
        "rollcall_readiness",
        Kind.GAUGE,
        "The merged verdict; unknown is never green.",
        _states("status", Verdict, document.status),
    )
    yield _family(
        "rollcall_check_status",
        Kind.GAUGE,
        "What each check says.",
        [
            ({"check": check.id, **labels}, value)
            for check in document.checks
            for labels, value in _states("status", CheckStatus, check.status)
        ],
    )
    for name, what, field in (
        ("rollcall_check_value", "What each check measured, in its unit.", "observed"),
        ("rollcall_check_limit", "Where too much begins for each check, in its unit.", "limit"),
    ):
        yield _family(
            name,
            Kind.GAUGE,
            what,
            [
                ({"check": check.id, "unit": check.unit or ""}, value)
                for check in document.checks
                if isinstance(value := getattr(check, field), float)
            ],
        )
    yield _family(
        "rollcall_check_age_seconds",
        Kind.GAUGE,
        "How old each check's reading is.",
        [({"check": each.id}, each.age_s) for each in document.checks if each.age_s is not None],
    )


def _upgrade(report: NodeReport) -> Iterator[str]:
    phase = None if report.upgrade is None else report.upgrade.phase
    yield _family(
        "rollcall_upgrade_phase",
        Kind.GAUGE,
        "Where the last upgrade of this node is or ended; all 0 where there was none.",
        _states("phase", Phase, phase),
    )
    own = sum(red.startswith(f"{report.node}:") for red in report.open_reds)
    counts = [({"origin": "own"}, own), ({"origin": "peer"}, len(report.open_reds) - own)]
    yield _family("rollcall_open_reds", Kind.GAUGE, "Reds that this node holds open.", counts)
    yield _gauge(
        "rollcall_frozen",
        "1 while a peer's red or a freeze by hand keeps this node from moving.",
        bool(report.freezes),
    )
    yield _family(
        "rollcall_freezes",
        Kind.GAUGE,
        "What keeps this node from moving.",
        [({"by": by}, sum(each.by is by for each in report.freezes)) for by in By],
    )


def _peers(report: NodeReport) -> Iterator[str]:
    found = Counter(how or NOT_FOUND for how in report.peers.values())
    yield _family(
        "rollcall_peers",
        Kind.GAUGE,
        "Peers of the roster, by how they were found.",
        [({"found": how}, float(found[how])) for how in sorted({NOT_FOUND, *found})],
    )
    left = sum(absence.left for absence in report.away.values())
    yield _family(
        "rollcall_away_peers",
        Kind.GAUGE,
        "Peers that are not there: silent, or gone with a goodbye.",
        [({"how": "left"}, left), ({"how": "silent"}, len(report.away) - left)],
    )
    yield _family(
        "rollcall_dropped_messages_total",
        Kind.COUNTER,
        "Peer messages that were not accepted, by reason.",
        [({"reason": reason}, float(count)) for reason, count in sorted(report.dropped.items())],
    )


def _process(process: Process) -> Iterator[str]:
    yield _family(
        "process_cpu_seconds_total",
        Kind.COUNTER,
        "Processor time of the agent.",
        [({}, process.cpu_s)],
    )
    yield _gauge(
        "process_resident_memory_bytes", "Resident memory of the agent.", process.resident_bytes
    )
    yield _gauge(
        "process_virtual_memory_bytes", "Virtual memory of the agent.", process.virtual_bytes
    )
    yield _gauge("process_start_time_seconds", "When the agent was started.", process.started)
    yield _gauge("process_open_fds", "Open file descriptors of the agent.", process.open_fds)
