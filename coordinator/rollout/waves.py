"""Which nodes move together, and after whom. Pure.

Bootstrap nodes come first, each alone; then canaries, if the strategy says so; then gateways, workers by cohort,
and schedulers last, each alone, because there is one at a time (seed 004). Within a class stable nodes go before
witnesses, and neighbours stay together, so that few pairs of neighbours run different cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from shared.fleetsettings import Strategy, how_many
from shared.rollout import NodeView, RolloutOptions, WaveKind
from shared.roster import NodeClass, Role

COHORT = "cohort"
_ORDER = {Role.CANARY: 0, Role.STABLE: 1, Role.WITNESS: 2}


@dataclass(frozen=True)
class Wave:
    kind: WaveKind
    nodes: tuple[str, ...]


def plan_waves(
    nodes: Sequence[NodeView], options: RolloutOptions, *, proven: bool = False
) -> list[Wave]:
    """`nodes` are those that move. `proven` says that canaries run the release already: none has to go first."""
    if not nodes:
        return []
    ordered = sorted(nodes, key=lambda node: (_ORDER[node.role], node.site, node.name))
    if options.stop_the_world:
        return [_wave(WaveKind.ALL, ordered)]
    waves = _alone(WaveKind.BOOTSTRAP, _of(ordered, NodeClass.BOOTSTRAP))
    middle = [node for node in ordered if node.class_ in (NodeClass.GATEWAY, NodeClass.WORKER)]
    if options.strategy is Strategy.CANARY and not proven and middle:
        canaries = [node for node in middle if node.role is Role.CANARY] or middle[:1]
        waves.append(_wave(WaveKind.CANARY, canaries))
        middle = [node for node in middle if node not in canaries]
    waves += _classes(middle, options, len(nodes))
    return waves + _alone(WaveKind.SCHEDULER, _of(ordered, NodeClass.SCHEDULER))


def _classes(nodes: list[NodeView], options: RolloutOptions, total: int) -> list[Wave]:
    gateways, workers = _of(nodes, NodeClass.GATEWAY), _of(nodes, NodeClass.WORKER)
    if options.strategy is Strategy.IMMEDIATE:
        waves = [_wave(WaveKind.GATEWAYS, gateways)] if gateways else []
        return waves + ([_wave(WaveKind.WORKERS, workers)] if workers else [])
    size = how_many(options.batch, total)
    waves = _batches(WaveKind.GATEWAYS, gateways, size)
    for _, cohort in groupby(sorted(workers, key=_cohort), key=_cohort):
        waves += _batches(WaveKind.WORKERS, list(cohort), size)
    return waves


def _cohort(node: NodeView) -> str:
    """What the worker says itself counts; before it has spoken, what operators say of it."""
    return node.cohort.queue if node.cohort else node.labels.get(COHORT, "")


def _of(nodes: Iterable[NodeView], class_: NodeClass) -> list[NodeView]:
    return [node for node in nodes if node.class_ is class_]


def _alone(kind: WaveKind, nodes: list[NodeView]) -> list[Wave]:
    return _batches(kind, nodes, 1)


def _batches(kind: WaveKind, nodes: list[NodeView], size: int) -> list[Wave]:
    return [_wave(kind, nodes[at : at + size]) for at in range(0, len(nodes), size)]


def _wave(kind: WaveKind, nodes: Sequence[NodeView]) -> Wave:
    return Wave(kind, tuple(node.name for node in nodes))
