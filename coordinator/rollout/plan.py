"""Which nodes move together, and after whom. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from shared.protocol import FIRST, ProtocolRange, check_overlap
from shared.release import AgentBuild
from shared.rollout import Strategy
from shared.roster import Role

_ORDER = {Role.CANARY: 0, Role.STABLE: 1, Role.WITNESS: 2}


def plan_waves(nodes: list[tuple[str, Role]], strategy: Strategy) -> list[list[str]]:
    """Waves of node names.

    `immediate`: all at once. `rolling`: one at a time. `canary`: all canaries together, then one at a
    time, stable nodes before witnesses. Without a canary the first stable node goes first, alone.
    """
    ordered = sorted(nodes, key=lambda node: (_ORDER[node[1]], node[0]))
    names = [name for name, _ in ordered]
    if strategy is Strategy.IMMEDIATE:
        return [names] if names else []
    if strategy is Strategy.ROLLING:
        return [[name] for name in names]
    canaries = [name for name, role in ordered if role is Role.CANARY]
    rest = [[name] for name, role in ordered if role is not Role.CANARY]
    return [canaries, *rest] if canaries else rest


def check_understood(agent: AgentBuild, spoken: Mapping[str, ProtocolRange]) -> None:
    """Raises ProtocolError unless an agent that comes with a release and everybody who is there now have a
    protocol in common: while the rollout goes on they live side by side (seed 004)."""
    for who, theirs in spoken.items():
        new = f"agent {agent.version} of the release"
        check_overlap(agent.protocol or FIRST, theirs, here=new, there=who)
