"""The words that the commands print."""

from __future__ import annotations

from datetime import datetime

from shared.readiness import Check, ReadinessDocument
from shared.report import Asker, NodeReport, UpgradeReport
from shared.sparkline import describe_trends, in_words
from shared.traffic import FULL


def value_of(check: Check) -> str:
    """What was observed, in words."""
    if isinstance(check.observed, float):
        return in_words(check.observed, check.unit)
    return str(check.observed or "")


def describe_document(document: ReadinessDocument, *, verbose: bool) -> list[str]:
    """A line a check; `verbose` adds when it was read, its limit, and the size of its evidence."""
    lines = [f"{document.node} is {document.status}"]
    width = max((len(check.id) for check in document.checks), default=0) + 2
    for check in document.checks:
        left_out = " (left out of the verdict)" if check.id in document.excluded else ""
        said = check.reason or value_of(check)
        lines.append(f"  {check.status:8}{check.id:{width}}{said}{left_out}".rstrip())
        if verbose:
            lines += [f"{'':{width + 10}}{detail}" for detail in _details(check, document)]
    lines.append(f"  ready_probe_sha256 {document.ready_probe_sha256}")
    if verbose:
        lines.append(f"  evidence_sha256    {document.evidence_sha256}")
    return lines


def _details(check: Check, document: ReadinessDocument) -> list[str]:
    parts = []
    if check.reason and check.observed is not None:
        parts.append(value_of(check))
    if check.limit is not None:
        parts.append(f"limit {value_of(check.model_copy(update={'observed': check.limit}))}")
    if check.age_s is not None:
        parts.append(f"read {check.age_s:g} s ago")
    if document.evidence is not None and (text := document.evidence.get(check.id)):
        parts.append(f"{len(text) * 3 // 4 - text.count('=')} bytes of evidence")
    return [", ".join(parts)] if parts else []


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
    lines += [f"  stays     {freeze.words}" for freeze in report.freezes]
    lines += [f"  {line}" for line in describe_trends(report.trends)]
    lines += [f"  alert     {alert}" for alert in report.alerts]
    lines += [f"  red       {red}" for red in report.open_reds]
    lines += [f"  away      {absence.reason}" for absence in report.away.values()]
    lines += [f"  peer      {name} ({how or 'not found'})" for name, how in report.peers.items()]
    lines += [f"  asked by  {_asker(each)}" for each in report.balancers]
    lines += _share(report)
    lines += [f"  dropped   {count} ({reason})" for reason, count in report.dropped.items()]
    return lines


def _share(report: NodeReport) -> list[str]:
    """Only while it is not all of the traffic, or not what is wanted."""
    wanted = report.weight_wanted
    if report.weight in (None, FULL) and wanted in (None, report.weight):
        return []
    aim = "" if wanted in (None, report.weight) else f", {wanted} % is wanted"
    why = f": {report.weight_waits}" if report.weight_waits else ""
    return [f"  share     {report.weight} % of traffic{aim}{why}"]


def _asker(asker: Asker) -> str:
    at = datetime.fromtimestamp(asker.asked).astimezone().strftime("%H:%M:%S")
    return f"{asker.address} ({asker.via}), last at {at}, told {asker.told!r}"


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
