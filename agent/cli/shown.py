"""The words that the commands print."""

from __future__ import annotations

from shared.readiness import Check
from shared.report import NodeReport, UpgradeReport
from shared.sparkline import describe_trends, in_words


def value_of(check: Check) -> str:
    """What was observed, in words."""
    if isinstance(check.observed, float):
        return in_words(check.observed, check.unit)
    return str(check.observed or "")


def describe(report: NodeReport) -> list[str]:
    ready = report.readiness
    lines = [
        f"{report.node}: OpenClaw {report.version_running or 'not running'}"
        f" (on disk {report.version_on_disk or 'none'}), {ready.status}",
    ]
    if ready.reason:
        lines.append(f"  because   {ready.reason}")
    lines.append(f"  hash      {ready.ready_probe_sha256}")
    if report.upgrade is not None:
        lines.append(f"  upgrade   {outcome(report.upgrade)}")
        lines += [f"            {line}" for line in _way_back(report.upgrade)]
    if report.waiting:
        lines.append(f"  waits     {report.waiting}")
    lines += [f"  {line}" for line in describe_trends(report.trends)]
    lines += [f"  alert     {alert}" for alert in report.alerts]
    lines += [f"  red       {red}" for red in report.open_reds]
    lines += [f"  peer      {name} ({how or 'not found'})" for name, how in report.peers.items()]
    lines += [f"  dropped   {count} ({reason})" for reason, count in report.dropped.items()]
    return lines


def _way_back(upgrade: UpgradeReport) -> list[str]:
    lines = []
    if upgrade.way_back is not None:
        word = "way back" if upgrade.way_back.possible else "no way back"
        lines.append(f"{word}: {'; '.join(upgrade.way_back.reasons)}")
    if upgrade.lost is not None:
        lines.append(f"set aside: {upgrade.lost.files} files")
    return lines


def outcome(upgrade: UpgradeReport) -> str:
    parts = [upgrade.phase, upgrade.detail, upgrade.reason]
    if upgrade.outage_s is not None:
        parts.append(f"outage {upgrade.outage_s:.1f} s")
    return ", ".join(part for part in parts if part)
