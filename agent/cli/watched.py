"""What `rollcall-agent top` knows of its node, and how that looks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.cli.shown import outcome, value_of
from agent.readiness.guards.slope import measure_rise
from agent.readiness.history import FULL_S, Sample
from agent.readiness.trends import UNITS, parts_of_hour
from shared.canonical import parse_json
from shared.readiness import Check, ReadinessDocument
from shared.report import NodeReport
from shared.sparkline import TITLES, in_words, sparkline

MAX_ANSWER = 4 << 20
HISTORY = "/v1/history"
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "unknown": "magenta"}
RANKS = ["fail", "unknown", "warn", "pass"]
LONGEST_VALUE = 20
LEAST_WIDTH, MOST_WIDTH = 20, 60
SLOPE_S = 600.0
POINTS = 600
"""Of each series at once: what a terminal can show, and within what one answer takes."""
BEHIND_S = 120.0
"""So much older than the newest of all series may be the newest of another: that is asked for again."""


class Watched:
    """Refreshed by whoever asks the agent. `away` says why the last refresh failed."""

    def __init__(self) -> None:
        self.document: ReadinessDocument | None = None
        self.report: NodeReport | None = None
        self.series: dict[str, list[Sample]] = {}
        self.away = ""

    async def refresh(self, ask: Callable[[str], Awaitable[bytes]]) -> None:
        """The first time an hour of every series; afterwards what is new. Raises what `ask` raises."""
        self.document = ReadinessDocument.from_bytes(await ask("/v1/readiness"))
        self.report = NodeReport.from_bytes(await ask("/v1/status"))
        newest = max((each[-1].at for each in self.series.values() if each), default=None)
        since = "" if newest is None else f"&since={newest - BEHIND_S:.3f}"
        answer = parse_json(await ask(f"{HISTORY}?points={POINTS}{since}"), max_bytes=MAX_ANSWER)
        for name, samples in answer["samples"].items():
            self._take(name, [Sample(at, value) for at, value in samples], self.document.at)

    def _take(self, name: str, samples: list[Sample], now: float) -> None:
        known = self.series.get(name, [])
        last = known[-1].at if known else 0.0
        new = [each for each in samples if each.at > last]
        self.series[name] = [each for each in [*known, *new] if each.at >= now - FULL_S]

    def slope(self, name: str) -> float | None:
        """Of the last ten minutes, per second; None where there is too little."""
        samples = self.series.get(name, [])
        if not samples:
            return None
        rise = measure_rise([each for each in samples if each.at >= samples[-1].at - SLOPE_S])
        return None if rise is None else rise.slope

    def as_json(self) -> dict[str, Any]:
        """Null for what was not heard yet."""
        return {
            "readiness": self.document and self.document.model_dump(mode="json"),
            "report": self.report and self.report.model_dump(mode="json"),
            "series": {
                name: {
                    "unit": UNITS.get(name, ""),
                    "samples": [[each.at, each.value] for each in samples],
                    "slope_per_s": self.slope(name),
                }
                for name, samples in self.series.items()
            },
        }


def head(seen: Watched) -> list[str]:
    report, document = seen.report, seen.document
    if report is None or document is None:
        return []
    lines = [
        f"{report.node}  OpenClaw {report.version_running or 'not running'}  {document.status}"
        f"  weight {'?' if report.weight is None else report.weight} %"
    ]
    if report.upgrade is not None:
        lines.append(f"upgrade  {outcome(report.upgrade)}")
    if report.waiting:
        lines.append(f"waits    {report.waiting}")
    peers = [f"{name} ({how or 'not found'})" for name, how in report.peers.items()]
    lines.append(f"peers    {', '.join(peers) or 'none'}")
    lines += [f"red      {red}" for red in report.open_reds] or ["reds     none open"]
    return lines


def check_rows(document: ReadinessDocument) -> list[list[str]]:
    """What needs a person comes first, and is there on a small screen too."""
    ranked = sorted(document.checks, key=lambda check: RANKS.index(check.status))
    return [
        [
            check.status,
            check.id,
            _cut(value_of(check)),
            _limit(check),
            _age(check, document),
            check.reason,
        ]
        for check in ranked
    ]


def _cut(text: str) -> str:
    """A hash is recognised by its beginning."""
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _limit(check: Check) -> str:
    if isinstance(check.limit, float):
        return in_words(check.limit, check.unit)
    return str(check.limit or "")


def _age(check: Check, document: ReadinessDocument) -> str:
    age = check.age_s
    if age is None and check.at is not None:
        age = max(0.0, document.at - check.at)
    return "" if age is None else f"{age:.0f} s"


def series_rows(seen: Watched, width: int) -> list[list[str]]:
    """Title, the last hour, the newest value, and more: for memory how fast it grows, and the ceiling."""
    rows = []
    for name, unit in UNITS.items():
        samples = seen.series.get(name)
        if not samples:
            continue
        values = parts_of_hour(samples, samples[-1].at - FULL_S, width)
        more = _of_memory(seen) if name == "memory_bytes" else ""
        newest = in_words(samples[-1].value, unit)
        rows.append([TITLES.get(name, name), sparkline(values), newest, more])
    return rows


def _of_memory(seen: Watched) -> str:
    slope = seen.slope("memory_bytes")
    words = [] if slope is None else [f"{in_words(slope * 60, 'bytes')}/min"]
    for check in [] if seen.document is None else seen.document.checks:
        if check.id == "memory" and isinstance(check.limit, float):
            words.append(f"ceiling {in_words(check.limit, 'bytes')}")
    return ", ".join(words)


def plain(seen: Watched) -> list[str]:
    """For a pipe: columns with tabs between."""
    lines = head(seen)
    if seen.document is not None:
        lines += ["", "\t".join(CHECKS), *("\t".join(row) for row in check_rows(seen.document))]
    rows = series_rows(seen, LEAST_WIDTH)
    return [*lines, "", *("\t".join(row).rstrip() for row in rows)]


CHECKS = ["STATUS", "CHECK", "OBSERVED", "LIMIT", "AGE", "REASON"]


def screen(seen: Watched, width: int) -> Group:
    at = time.strftime("%H:%M:%S")
    banner = f"{at}  no answer: {seen.away}" if seen.away else f"{at}  Ctrl-C ends"
    parts: list[Any] = [Text(banner, style="bold red" if seen.away else "dim")]
    parts += [
        Text(line, style="bold" if place == 0 else "") for place, line in enumerate(head(seen))
    ]
    if seen.document is not None:
        table = _table(CHECKS)
        for row in check_rows(seen.document):
            status, *others = row
            table.add_row(Text(status, style=STYLES[status]), *map(Text, others))
        parts += [Text(""), table]
    hour = _table(["SERIES", "LAST HOUR", "NOW", ""])
    for title, bars, *others in series_rows(seen, max(LEAST_WIDTH, min(MOST_WIDTH, width // 2))):
        hour.add_row(Text(title), Text(bars, style="cyan"), *map(Text, others))
    return Group(*parts, Text(""), hour)


def _table(columns: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != "REASON")
    return table
