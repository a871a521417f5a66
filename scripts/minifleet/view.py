"""The fleet, live: one line a node at a terminal, one line a change when piped. Always on stderr or
stdout as the caller chose; never both."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from shared.rollout import FleetView, NodeView

STYLE = {"green": "green", "red": "red", "unknown": "yellow"}


class View:
    """A context manager; `show` takes each new picture of the fleet, `say` a line of text."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._console = Console(file=out, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4) if out.isatty() else None
        self._shown: dict[str, str] = {}
        self._began = time.monotonic()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(f"[{self._age():5.1f}s] {text}", markup=False, soft_wrap=True)

    def show(self, view: FleetView) -> None:
        if self._live is not None:
            self._live.update(_table(view))
            return
        for node in view.nodes:
            line = _line(node, view)
            if self._shown.get(node.name) != line:
                self._shown[node.name] = line
                self.say(line)

    def clear(self) -> None:
        if self._live is not None:
            self._live.update("")

    def _age(self) -> float:
        return time.monotonic() - self._began


def _line(node: NodeView, view: FleetView) -> str:
    cells = _cells(node, view)
    return (
        f"{node.name:8} {cells[1]:13} {cells[2]:22} {cells[3]:8} {cells[4]:14} {cells[5]}".rstrip()
    )


def _table(view: FleetView) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NODE", "PHASE", "OPENCLAW", "READY", "ACKS", "DETAIL"):
        table.add_column(column, no_wrap=True)
    for node in view.nodes:
        cells = _cells(node, view)
        cells[3] = f"[{STYLE.get(cells[3], 'white')}]{cells[3]}[/]"
        table.add_row(*cells)
    return table


def _cells(node: NodeView, view: FleetView) -> list[str]:
    upgrade = node.upgrade
    versions = node.version_running or "-"
    if upgrade is not None and upgrade.outcome is None and upgrade.version_before:
        versions = f"{upgrade.version_before} ->"
    peers = max(1, len(view.nodes) - 1)
    signed = f"{len(acked_by(node))}/{peers} attest {len(node.attested_by)}/{peers}"
    return [
        node.name,
        upgrade.phase if upgrade is not None else "-",
        versions,
        str(node.status),
        signed,
        _detail(node, view)[:90],
    ]


def _detail(node: NodeView, view: FleetView) -> str:
    """What the node does, or why it does nothing. Seconds left are for a live picture, not for a log."""
    if node.frozen_by:
        return f"frozen by {', '.join(node.frozen_by)}"
    upgrade = node.upgrade
    if upgrade is not None and upgrade.outcome is None:
        return upgrade.detail.split(",")[0]
    if upgrade is not None and upgrade.outcome != "done":
        return upgrade.reason
    if node.waiting:
        return node.waiting
    planned = view.rollout.find(node.name) if view.rollout is not None else None
    if planned is None or (upgrade is not None and upgrade.order == planned.order):
        return ""
    return planned.reason


def acked_by(node: NodeView) -> list[str]:
    """Peers that signed for this node's last word to all of them."""
    return sorted(node.broadcasts[0].acked_ms) if node.broadcasts else []
