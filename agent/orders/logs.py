"""An order for the end of the gateway's logs: bounded, and without what looks like a secret."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.orders.kept import Outcome
from agent.orders.performer import Work
from agent.readiness.logs.forms import LogReport
from agent.readiness.logs.gateway import GatewayLogs, Tail
from shared.clock import Clock
from shared.orders import MAX_RESULT_CHARS, LogBundle, LogFile, LogForm, OrderKind

ETA_S = 60.0
TAIL_BYTES = 64 << 10
MAX_LINES = 500
"""Of each file."""
MAX_FILES = 16
MAX_FORMS = 100
ROOM = MAX_RESULT_CHARS // 2
"""Characters for lines: the rest is for the forms of errors, and for what JSON escapes."""


class CollectLogs:
    kind: ClassVar[str] = OrderKind.COLLECT_LOGS

    def __init__(self, node: str, logs: GatewayLogs, clock: Clock) -> None:
        self._node, self._logs, self._clock = node, logs, clock

    @property
    def eta_s(self) -> float:
        return ETA_S

    async def perform(self, work: Work) -> Outcome:
        tails = await asyncio.to_thread(self._logs.tails, TAIL_BYTES)
        bundle = make_bundle(self._node, self._logs.report(), tails, self._clock.now())
        lines = sum(len(file.lines) for file in bundle.files)
        said = f"{lines} lines of {len(bundle.files)} logs, {bundle.new_errors} new errors"
        return Outcome(reason=said, result=bundle.canonical().decode())


def make_bundle(node: str, report: LogReport, tails: list[Tail], now: float) -> LogBundle:
    """As much as fits: of each file the last lines, in fair shares."""
    share = ROOM // max(1, min(len(tails), MAX_FILES))
    files, left_out = [], 0
    for tail in tails[:MAX_FILES]:
        lines = _last(tail.lines, share)
        left_out += len(tail.lines) - len(lines)
        files.append(LogFile(path=tail.path[:1000], lines=lines, why=tail.why[:2000]))
    forms = [
        LogForm(
            template=form.template,
            example=form.example,
            count=form.count,
            last=form.last,
            new=form.new,
        )
        for form in report.forms[:MAX_FORMS]
    ]
    return LogBundle(
        node=node,
        at=now,
        release=report.release,
        new_errors=report.new_errors,
        forms=forms,
        files=files,
        left_out=left_out,
    )


def _last(lines: list[str], room: int) -> list[str]:
    """The last lines that have `room` characters together, as JSON writes them."""
    size, kept = 0, 0
    for line in reversed(lines[-MAX_LINES:]):
        size += len(line) + line.count('"') + line.count("\\") + 4
        if size > room:
            break
        kept += 1
    return lines[len(lines) - kept :]
