"""A rollout as it would go, before anything begins: `(request, what is known, now) -> plan`. Pure.

The plan is made anew when it is started, and must then have the same hash: what an operator has seen is what is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from coordinator.rollout.checks import (
    Checked,
    check_fleet,
    check_node,
    check_options,
    check_undo,
    check_undone,
)
from coordinator.rollout.facts import Fleet
from coordinator.rollout.neighbours import neighbours
from coordinator.rollout.skew import core_of
from coordinator.rollout.waves import plan_waves
from coordinator.rollout.windows import shut
from shared.fleetsettings import FleetSettings, Strategy, how_many
from shared.protocol import ProtocolRange
from shared.release import Release
from shared.report import WayBack
from shared.rollout import (
    NodeState,
    NodeView,
    Rollout,
    RolloutKind,
    RolloutNode,
    RolloutOptions,
    RolloutRequest,
    WaveKind,
)
from shared.rolloutplan import EMPTY, Plan, PlanNode, PlanWave, Refusal, seal_plan
from shared.roster import Role
from shared.wayback import foresee
from shared.wire import short

T = TypeVar("T")

NODE_S = 120.0
"""What an upgrade of one node takes, where none was made yet."""
UNDO_S = 30.0
SOAKING = "soaking"


@dataclass(frozen=True)
class Moving:
    """One node that would move, and where."""

    view: NodeView
    release: str
    undoes: str | None
    way_back: WayBack | None
    checked: Checked


def resolve(
    asked: RolloutRequest, settings: FleetSettings, *, undo: bool = False
) -> RolloutOptions:
    """Every default filled in. What moves everything at once has no use for a limit of nodes that are out."""
    usual = Strategy.ROLLING if undo else settings.strategy
    strategy = asked.strategy or (Strategy.IMMEDIATE if asked.stop_the_world else usual)
    everything = strategy is Strategy.IMMEDIATE
    return RolloutOptions(
        strategy=strategy,
        batch=asked.batch or settings.batch,
        max_unavailable=asked.max_unavailable
        or ("100%" if everything else settings.max_unavailable),
        max_per_site=_or(asked.max_per_site, settings.max_per_site),
        soak=_or(asked.soak, 0.0 if undo else settings.soak),
        settle=_or(asked.settle, 0.0 if undo else settings.settle),
        steps=asked.steps or settings.steps,
        step_for=_or(asked.step_for, settings.step_for),
        only=sorted(set(asked.only)),
        stop_the_world=asked.stop_the_world,
        yes_really=asked.yes_really,
    )


def _or(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def plan_upgrade(
    asked: RolloutRequest, fleet: Fleet, release: Release, speaks: ProtocolRange, now: float
) -> Plan:
    options = resolve(asked, fleet.settings)
    chosen = _chosen(fleet, options)
    moving = {
        name: _forward(view, release, now)
        for name, view in chosen.items()
        if view.release != release.id
    }
    stays = dict.fromkeys(chosen.keys() - moving.keys(), "runs it already")
    proven = any(chosen[name].role is Role.CANARY for name in stays)
    waves = _waves(moving, options, fleet, proven=proven)
    refusals = check_fleet(release, fleet, options, speaks, now)
    draft = Draft(options, fleet, waves, moving, stays, release.id, release.manifest.openclaw)
    return draft.seal(
        kind=RolloutKind.UPGRADE,
        label=release.label,
        expires=release.manifest.expires,
        undoes=None,
        refusals=refusals,
        now=now,
    )


def plan_undo(asked: RolloutRequest, fleet: Fleet, undone: Rollout, now: float) -> Plan:
    """Back to what each node of `undone` ran before, by its own bookmark."""
    options = resolve(asked, fleet.settings, undo=True)
    chosen = _chosen(fleet, options)
    moving, stays = {}, {}
    for node in undone.nodes:
        view = chosen.get(node.name)
        if view is None:
            continue
        if node.state is NodeState.DONE and node.flagged is not None:
            moving[node.name] = _backward(view, node, undone, now)
        else:
            stays[node.name] = short(f"rollout {undone.id} left it {node.state}: {node.reason}")
    waves = _waves(moving, options, fleet, proven=True)
    draft = Draft(options, fleet, waves, moving, stays, undone.release, None)
    return draft.seal(
        kind=RolloutKind.UNDO,
        label=f"what ran before {undone.label}",
        expires=None,
        undoes=undone.id,
        refusals=check_undo(undone, fleet, options, moving),
        now=now,
    )


def _chosen(fleet: Fleet, options: RolloutOptions) -> dict[str, NodeView]:
    wanted = set(options.only) or fleet.nodes.keys()
    return {name: view for name, view in sorted(fleet.nodes.items()) if name in wanted}


def _forward(view: NodeView, release: Release, now: float) -> Moving:
    standing = view.standing
    after = str(release.manifest.schema_versions)
    way = None if standing is None else foresee(standing, after)
    return Moving(view, release.id, None, way, check_node(view, release, way, now))


def _backward(view: NodeView, node: RolloutNode, undone: Rollout, now: float) -> Moving:
    previous = node.previous or node.release or undone.release
    way = None if view.upgrade is None else view.upgrade.way_back
    return Moving(view, previous, node.order, way, check_undone(view, node, now))


def _waves(
    moving: Mapping[str, Moving], options: RolloutOptions, fleet: Fleet, *, proven: bool
) -> list[PlanWave]:
    views = [each.view for each in moving.values()]
    slots = how_many(options.max_unavailable, len(fleet.nodes)) if fleet.nodes else 1
    found = []
    for wave in plan_waves(views, options, proven=proven):
        at_once = min(slots, len(wave.nodes))
        if options.max_per_site:
            sites = {moving[name].view.site for name in wave.nodes}
            at_once = min(at_once, options.max_per_site * len(sites))
        soak = options.soak if wave.kind is WaveKind.CANARY else options.settle
        rounds = math.ceil(len(wave.nodes) / at_once)
        each_s = max(_lasts(moving[name]) for name in wave.nodes)
        found.append(
            PlanWave(
                kind=wave.kind,
                nodes=list(wave.nodes),
                soak_s=soak,
                at_once=at_once,
                estimated_s=round(rounds * each_s + soak, 1),
            )
        )
    return found


def _lasts(moving: Moving) -> float:
    """Seconds without the soak, as the node's last upgrade took."""
    last = moving.view.upgrade
    if moving.undoes is not None:
        known = None if last is None or last.way_back is None else last.way_back.rollback_s
        return known or UNDO_S
    if last is None or last.outcome != "done":
        return NODE_S
    return sum(spent for phase, spent in last.spent_s.items() if phase != SOAKING) or NODE_S


@dataclass(frozen=True)
class Draft:
    """The parts of a plan, put together in `seal`. `core` is OpenClaw's version that all move to, if it is one."""

    options: RolloutOptions
    fleet: Fleet
    waves: list[PlanWave]
    moving: Mapping[str, Moving]
    stays: Mapping[str, str]
    release: str
    core: str | None

    def seal(
        self,
        *,
        kind: RolloutKind,
        label: str,
        expires: float | None,
        undoes: str | None,
        refusals: list[Refusal],
        now: float,
    ) -> Plan:
        nodes = [self._node(name) for name in sorted({*self.moving, *self.stays})]
        found = [*refusals, *check_options(self.options, self.waves), *self._of_nodes(nodes)]
        window = shut(self.fleet.settings, now)
        return seal_plan(
            Plan(
                sha256=EMPTY,
                kind=kind,
                undoes=undoes,
                release=self.release,
                label=label,
                expires=expires,
                options=self.options,
                waves=self.waves,
                nodes=nodes,
                refusals=found,
                warnings=self._warnings(nodes, window, now),
                estimated_s=round(sum(wave.estimated_s for wave in self.waves), 1),
                way_back=self._way_back(kind),
                planned=now,
                window=window,
            )
        )

    @cached_property
    def _neighbours(self) -> dict[str, set[str]]:
        return neighbours(self.fleet.nodes)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: at for at, wave in enumerate(self.waves) for name in wave.nodes}

    def _node(self, name: str) -> PlanNode:
        view, moving = self.fleet.nodes[name], self.moving.get(name)
        node = PlanNode(
            name=name,
            role=view.role,
            class_=view.class_,
            site=view.site,
            previous=view.release,
            version_before=core_of(view),
            stays=self.stays.get(name, ""),
            there=moving is None and view.release == self.release,
        )
        if moving is None:
            return node
        return node.model_copy(
            update={
                "wave": self._numbers.get(name),
                "release": moving.release,
                "undoes": moving.undoes,
                "way_back": moving.way_back,
                "below_full_until": self._held_back(name),
                "checks": moving.checked.checks,
            }
        )

    def _held_back(self, name: str) -> list[str]:
        """Neighbours on another core that move later, or not at all (P7)."""
        if self.core is None or self.options.stop_the_world:
            return []
        numbers = self._numbers
        found = []
        for other in self._neighbours.get(name, set()):
            core = core_of(self.fleet.nodes[other])
            later = numbers.get(other, len(self.waves)) > numbers[name]
            if core is not None and core != self.core and later:
                found.append(other)
        return sorted(found)

    def _of_nodes(self, nodes: list[PlanNode]) -> list[Refusal]:
        found = [refusal for each in self.moving.values() for refusal in each.checked.refusals]
        lowest = self.options.steps[0]
        for node in nodes:
            asked = self.fleet.nodes[node.name].balancers
            if node.below_full_until and asked and lowest == 100:
                found.append(
                    Refusal(
                        gate="adjacency",
                        node=node.name,
                        reason=f"{', '.join(node.below_full_until)} beside it run another core meanwhile,"
                        " and both would serve at full ratio",
                        remedy="a step below 100: --steps 50,100",
                    )
                )
        return found

    def _warnings(self, nodes: list[PlanNode], window: str, now: float) -> list[str]:
        found = []
        if not self.moving:
            found.append("there is nothing to do: no node would move")
        if self.options.stop_the_world:
            found.append(
                "stop the world: all of these nodes are out at once, and nothing serves meanwhile"
            )
        elif self.moving and any(wave.at_once == len(self.fleet.nodes) > 1 for wave in self.waves):
            found.append("all nodes are out at once: nothing serves meanwhile")
        waits = (window, self.fleet.ratios_frozen)
        found += [f"nothing begins yet: {words}" for words in waits if words]
        if self.fleet.settings.validation == "warn":
            found += self.fleet.stranded
        if silent := [name for name in self.fleet.silent(now) if name in self.moving]:
            found.append(f"not heard of, and waited for: {', '.join(silent)}")
        for check in ("freeze", "readiness"):
            found += _in_doubt(nodes, check)
        for at, wave in enumerate(self.waves):
            if wave.at_once < len(wave.nodes):
                found.append(
                    f"wave {at + 1} has {len(wave.nodes)} nodes; {wave.at_once} of them are out at once"
                )
        return [short(each) for each in found]

    def _way_back(self, kind: RolloutKind) -> str:
        if kind is RolloutKind.UNDO:
            return "none: what is undone is not done again by itself"
        if not self.moving:
            return "nothing moves"
        sure = [name for name, each in self.moving.items() if each.way_back is not None]
        unsure = sorted(self.moving.keys() - set(sure))
        words = f"each node by its own bookmark ({len(sure)} of {len(self.moving)} looked at)"
        return f"{words}; not known of {', '.join(unsure[:10])}" if unsure else words


def _in_doubt(nodes: list[PlanNode], check: str) -> list[str]:
    return [
        f"{node.name}: {each.reason}"
        for node in nodes
        for each in node.checks
        if each.id == check and each.status == "warn"
    ]
