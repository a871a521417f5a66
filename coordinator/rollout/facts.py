"""What decisions about rollouts rest on: the nodes as they were last heard of, reds, settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.fleetsettings import FleetSettings
from shared.report import Absence
from shared.rollout import NodeView, RedView

SILENT_AFTER_S = 30.0


@dataclass(frozen=True)
class Fleet:
    """`nodes` are the live nodes of the roster. `witnesses` by the fleet document; without any, every node is one.
    `rollbacks` counts them by release, since an operator last allowed it again."""

    nodes: Mapping[str, NodeView]
    reds: list[RedView]
    witnesses: tuple[str, ...] = ()
    settings: FleetSettings = field(default_factory=FleetSettings)
    rollbacks: Mapping[str, int] = field(default_factory=dict)
    widening: Mapping[str, str] = field(default_factory=dict)
    """Upgraded nodes that are not given all of their traffic yet, with the share and what the next step waits for. A
    node that stays below full for its neighbours' sake is not among them: those wait for it in turn."""

    held: frozenset[str] = frozenset()
    """Nodes with an order in hand that takes them out: a restart, or a rollback."""
    stranded: tuple[str, ...] = ()
    """Work of builds that no live worker has, in words."""
    ratios_frozen: str = ""
    """Who froze the shares of all nodes, in words; empty when nobody did."""

    def open_reds(self) -> list[RedView]:
        return [red for red in self.reds if red.open]

    def is_silent(self, node: NodeView, now: float) -> bool:
        return node.heard is None or now - node.heard > SILENT_AFTER_S

    def silent(self, now: float) -> list[str]:
        return sorted(name for name, node in self.nodes.items() if self.is_silent(node, now))

    def unreached(self, now: float) -> dict[str, str]:
        """Nodes that their peers do not reach, each in words. What a node said that is itself not heard of any more
        is out of date."""
        found: dict[str, list[tuple[str, Absence]]] = {}
        mute = set(self.silent(now))
        for name in sorted(self.nodes.keys() - mute):
            for peer, absence in self.nodes[name].away.items():
                if peer in self.nodes:
                    found.setdefault(peer, []).append((name, absence))
        return {peer: _describe_absence(peer, said) for peer, said in sorted(found.items())}


def _describe_absence(peer: str, said: list[tuple[str, Absence]]) -> str:
    since = datetime.fromtimestamp(min(each.since for _, each in said), UTC)
    names = ", ".join(name for name, _ in said)
    if all(each.left for _, each in said):
        return f"{peer} said goodbye to {names} at {since:%H:%M:%S} UTC"
    return f"{peer} is silent to {names} since {since:%H:%M:%S} UTC"
