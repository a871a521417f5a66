"""Nodes in words: rows, filters, orders, and one node in full."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from coordinator.saying import moment
from shared.errors import UsageError
from shared.nodes import NodeHealth, NodeStatus, NodeUpgrade
from shared.report import UpgradeReport
from shared.rollout import NodeView
from shared.roster import NodeClass, Role
from shared.sparkline import describe_trends

COLUMNS = [
    "NODE",
    "STATUS",
    "HEALTH",
    "CLASS",
    "ROLE",
    "SITE",
    "READINESS",
    "OPENCLAW",
    "HEARD",
    "CERT",
    "NOTE",
]
UPGRADE_COLUMNS = ["BEGAN", "STATUS", "OPENCLAW", "AGENT", "RELEASE", "TOOK", "BY", "ERROR"]
STATUS_ORDER = [
    NodeStatus.ERROR,
    NodeStatus.OFFLINE,
    NodeStatus.DEGRADED,
    NodeStatus.UPGRADING,
    NodeStatus.PROVISIONING,
    NodeStatus.ONLINE,
]
"""What needs somebody first."""


class Sort(StrEnum):
    NAME = "name"
    STATUS = "status"
    HEALTH = "health"
    CLASS = "class"
    SITE = "site"
    VERSION = "version"
    HEARD = "heard"


_KEYS: dict[Sort, Callable[[NodeView], Any]] = {
    Sort.NAME: lambda node: (),
    Sort.STATUS: lambda node: STATUS_ORDER.index(node.node_status),
    Sort.HEALTH: lambda node: -1 if node.health_score is None else node.health_score,
    Sort.CLASS: lambda node: list(NodeClass).index(node.class_),
    Sort.SITE: lambda node: node.site,
    Sort.VERSION: lambda node: _numbers(node.version_running or ""),
    Sort.HEARD: lambda node: node.heard or 0.0,
}


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]{1,18}", version)]


def sort_nodes(nodes: Sequence[NodeView], by: Sort) -> list[NodeView]:
    """Lowest first, nodes that are alike by name."""
    key = _KEYS[by]
    return sorted(nodes, key=lambda node: (key(node), node.name))


@dataclass(frozen=True)
class Wanted:
    """None and nothing leave everything in. `labels` are `key` or `key=value`, all of which must fit."""

    status: NodeStatus | None = None
    class_: NodeClass | None = None
    role: Role | None = None
    site: str | None = None
    labels: Sequence[str] = ()

    def fits(self, node: NodeView) -> bool:
        pairs = (
            (self.status, node.node_status),
            (self.class_, node.class_),
            (self.role, node.role),
            (self.site, node.site),
        )
        return all(wanted in (None, found) for wanted, found in pairs) and all(
            _has_label(node, label) for label in self.labels
        )


def _has_label(node: NodeView, text: str) -> bool:
    key, separator, value = text.partition("=")
    return key in node.labels and (not separator or node.labels[key] == value)


def read_label(text: str) -> tuple[str, str]:
    """`key=value`. Raises UsageError."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise UsageError(
            f"--label {text!r} is not of the form key=value",
            remedy="to take one off: --remove-label key",
        )
    return key, value


def row(node: NodeView) -> list[str]:
    note = (
        node.waiting
        or "; ".join(freeze.words for freeze in node.freezes)
        or node.reason
        or "; ".join(node.alerts)
    )
    return [
        node.name,
        node.node_status,
        score(node),
        node.class_,
        node.role,
        node.site or "-",
        node.status,
        node.version_running or "-",
        "never" if node.age_s is None else f"{node.age_s:.0f} s ago",
        days_left(node),
        note,
    ]


def score(node: NodeView) -> str:
    return "-" if node.health_score is None else str(node.health_score)


def describe(node: NodeView, upgrades: Sequence[NodeUpgrade] = ()) -> list[str]:
    heard = "never heard" if node.age_s is None else f"heard {node.age_s:.0f} s ago"
    lines = [
        f"{node.name} ({node.role}{f', {node.site}' if node.site else ''}):"
        f" OpenClaw {node.version_running or 'not running'}, {node.status}, {heard}"
    ]
    said = {
        "status": f"{node.node_status}, class {node.class_}, health {score(node)}{_health(node.health)}",
        "because": node.reason,
        "waits": node.waiting,
        "runs": _runs(node),
        "hash": node.ready_probe_sha256 or "",
        "place": _place(node),
        "labels": labels_text(node.labels),
        "cohort": _cohort(node),
        "pending": _pending(node),
        "upgrade": "" if node.upgrade is None else _describe_upgrade(node.upgrade),
        "blocklist": ", ".join(each[:12] for each in node.blocked),
        "frozen by": ", ".join(node.frozen_by),
        "cert": days_left(node),
    }
    lines += [f"  {title:<10}{text}" for title, text in said.items() if text]
    lines += [f"  alert     {alert}" for alert in node.alerts]
    lines += [f"  was       {'  '.join(upgrade_row(each))}".rstrip() for each in upgrades]
    return lines + [f"  {line}" for line in describe_trends(node.trends)]


def _runs(node: NodeView) -> str:
    """Core, release and agent, each as the node itself said it last."""
    running, on_disk = node.version_running, node.version_on_disk
    core = f"OpenClaw {running or 'not running'}"
    if on_disk not in (None, running):
        core += f" (on disk {on_disk})"
    release = f"release {node.release[:12]}" if node.release else ""
    agent = f"agent {node.agent_version}" if node.agent_version else ""
    spoken = "" if node.protocol is None else str(node.protocol)
    return ", ".join(part for part in (core, release, agent, spoken, node.platform) if part)


def _place(node: NodeView) -> str:
    said = {
        "provider": node.provider,
        "region": node.region,
        "site": node.site,
        "address": node.address,
    }
    return ", ".join(f"{name} {text}" for name, text in said.items() if text)


def labels_text(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _health(health: NodeHealth | None) -> str:
    if health is None or not health.window_s:
        return ""
    numbers = {
        "up": _with_unit(health.uptime, " %"),
        "ready": _with_unit(health.ready, " %"),
        "errors": _with_unit(health.error_rate, " %"),
        "p95": _with_unit(health.start_p95_ms, " ms"),
        "crashes": str(health.crashes),
    }
    said = ", ".join(f"{name} {text}" for name, text in numbers.items() if text)
    hours, minutes = divmod(round(health.window_s / 60), 60)
    return f" ({said}, over {f'{hours} h {minutes} min' if hours else f'{minutes} min'})"


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g}{unit}"


def _cohort(node: NodeView) -> str:
    cohort = node.cohort
    if cohort is None:
        return ""
    counts = "?" if cohort.active is None else f"{cohort.active} in hand, {cohort.waiting} waiting"
    return f"{cohort.queue} {cohort.build_id}: {cohort.state}, {counts}"


def _pending(node: NodeView) -> str:
    pending = node.pending
    if pending is None:
        return ""
    return f"{pending.label} by {pending.strategy}, set by {pending.set_by} at {moment(pending.set_at)}"


def _describe_upgrade(upgrade: UpgradeReport) -> str:
    return ", ".join(part for part in (upgrade.phase, upgrade.detail, upgrade.reason) if part)


def days_left(node: NodeView) -> str:
    """What the node's certificate has left; a full 30 days says that it was just renewed."""
    if node.certificate_expires is None:
        return "-"
    return f"{(node.certificate_expires - time.time()) / 86400:.0f} d"


def upgrade_row(upgrade: NodeUpgrade) -> list[str]:
    took = "-" if upgrade.duration_s is None else f"{upgrade.duration_s:.0f} s"
    if upgrade.outage_s is not None:
        took += f", out {upgrade.outage_s:.1f} s"
    return [
        moment(upgrade.began),
        upgrade.status,
        _move(upgrade.from_core or "-", upgrade.to_core or "-"),
        _move(upgrade.from_agent, upgrade.to_agent),
        upgrade.label or upgrade.release[:12],
        took,
        upgrade.by or "-",
        upgrade.error,
    ]


def _move(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
