"""Widens shares by itself, step by step, and says of every node what it waits for."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

import structlog

from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout.facts import Fleet
from coordinator.rollout.neighbours import below_full, neighbours
from coordinator.store.queries import Queries
from coordinator.traffic.book import TrafficBook
from coordinator.traffic.decide import (
    Pace,
    Rules,
    Seen,
    Wanted,
    advance,
    asked_by,
    describe,
    next_percent,
    observe,
    widening,
)
from coordinator.traffic.snapshots import Snapshots
from shared.clock import Clock
from shared.fleetsettings import FleetSettings
from shared.nodes import CohortState
from shared.rollout import NodeState, Rollout, RolloutState
from shared.traffic import FULL, NodeTraffic, TrafficView
from shared.wire import short

log = structlog.get_logger()

TICK_S = 1.0
PAUSE_S = 0.2
"""Between two looks at least: every report of every node is news."""
REST = 4
"""A look at a large fleet takes its time; so many times as long belongs to everybody else."""

NOT_ASKED = frozenset({CohortState.DRAINING, CohortState.DRAINED})
"""A worker of such a cohort has load balancers told 0, whatever its share is."""
STANDING = (RolloutState.PAUSED, RolloutState.HALTED, RolloutState.ABORTING)
"""States of a rollout in which the shares of its nodes stay as they are."""

SettingsSource = Callable[[], Awaitable[FleetSettings]]


def make_id(node: str) -> str:
    return f"{secrets.token_hex(4)}:{node}"


class TrafficEngine:
    """Holds nothing: a restarted coordinator goes on from its tables."""

    def __init__(
        self,
        book: TrafficBook,
        snapshots: Snapshots,
        queries: Queries,
        fleet: FleetState,
        settings: SettingsSource,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._book, self._snapshots, self._queries, self._fleet = book, snapshots, queries, fleet
        self._settings, self._notifier, self._clock = settings, notifier, clock

    async def run(self) -> None:
        """Looks only while there is something that may change: a share that widens, or news of an upgrade."""
        generation, known = 0, -1
        while True:
            generation = await self._notifier.wait_beyond(generation, TICK_S)
            began, news = self._clock.monotonic(), self._fleet.upgrade_news
            if self._book.unsettled or news != known:
                await self.step()
                known = news
            await self._clock.sleep(max(PAUSE_S, REST * (self._clock.monotonic() - began)))

    async def step(self) -> None:
        fleet, now = await self._fleet.fleet(), self._clock.now()
        await self._book.forget(fleet.nodes)
        looked = [
            (before, observe(before, view, now, make_id(name)))
            for name, view in fleet.nodes.items()
            for before in [self._book.wanted.get(name)]
        ]
        await self._book.change([(before, after) for before, after in looked if after is not None])
        rules, seen = await self.rules(fleet), await self.seen(fleet)
        wider = [
            (each, advance(each, seen[each.node], rules, now, make_id(each.node)))
            for each in self._book.wanted.values()
            if each.node in seen
        ]
        if await self._book.change(wider):
            said = [f"{new.node} {new.percent} %" for old, new in wider if old.id != new.id]
            log.info("traffic", steps=said)

    async def beside(self, rollout: Rollout) -> None:
        """A snapshot beside every bookmark: as the rollout starts, and before each wave. Idempotent."""
        begun = [node.wave for node in rollout.nodes if node.state is not NodeState.WAITING]
        wave = max(begun, default=0)
        await self._snapshots.take_once(rollout.id, wave)

    async def rules(self, fleet: Fleet) -> Rules:
        settings, rollouts = await self._settings(), await self._rollouts()
        paces = {
            id_: Pace(each.options.steps, each.options.step_for) for id_, each in rollouts.items()
        }
        return Rules(
            steps=settings.steps,
            step_for=settings.step_for,
            frozen=self._book.frozen,
            fleet_frozen=settings.frozen,
            halted={
                id_: short(f"{each.state}: {each.reason}" if each.reason else each.state, 500)
                for id_, each in rollouts.items()
                if each.state in STANDING
            },
            paces=paces,
            beside=self._beside(fleet, paces),
            reds=[
                short(
                    f"red of {red.origin}: {red.reason}; ends with: rollcall red clear {red.key}",
                    500,
                )
                for red in fleet.open_reds()
            ],
        )

    async def _rollouts(self) -> dict[str, Rollout]:
        """Those whose nodes are still being given more, by id."""
        widening = {each.rollout for each in self._book.wanted.values() if each.widens}
        found = [await self._queries.rollout(id_) for id_ in sorted(widening - {""})]
        return {each.id: each for each in found if each is not None}

    def _beside(self, fleet: Fleet, paces: Mapping[str, Pace]) -> dict[str, list[str]]:
        """For each node whose next share would be all: its neighbours on another core."""
        found, settled, near = {}, Pace([FULL], 0.0), neighbours(fleet.nodes)
        for name, each in self._book.wanted.items():
            last = next_percent(each, paces.get(each.rollout, settled)) == FULL
            if each.widens and last and each.rollout in paces:
                moved = (
                    other.node
                    for other in self._book.wanted.values()
                    if other.rollout == each.rollout
                    and other.node in fleet.nodes
                    and fleet.nodes[other.node].release == other.release
                )
                found[name] = below_full(name, fleet.nodes, near, frozenset(moved))
        return found

    async def seen(self, fleet: Fleet) -> dict[str, Seen]:
        steps = {
            name: (each.id, each.release or fleet.nodes[name].release or "")
            for name, each in self._book.wanted.items()
            if each.widens and name in fleet.nodes
        }
        unsigned = await self._fleet.unsigned(steps, fleet)
        return {name: Seen(view, unsigned.get(name, {})) for name, view in fleet.nodes.items()}

    async def widening(self, fleet: Fleet) -> dict[str, str]:
        """Why upgraded nodes are not at their full share yet, by node; no entry for one that is."""
        now = self._clock.now()
        rules, seen = await self.rules(fleet), await self.seen(fleet)
        found = {
            name: widening(self._book.wanted.get(name), each, rules, now)
            for name, each in seen.items()
        }
        return {name: reason for name, reason in found.items() if reason}

    async def shows(self) -> Callable[[Wanted], NodeTraffic]:
        """How a node is shown of which this is wanted, as far as that is known before it is."""
        fleet, now = await self._fleet.fleet(), self._clock.now()
        rules, seen = await self.rules(fleet), await self.seen(fleet)
        return lambda wanted: _shown(wanted, seen[wanted.node], rules, now)

    async def view(self) -> TrafficView:
        fleet, now = await self._fleet.fleet(), self._clock.now()
        rules, seen = await self.rules(fleet), await self.seen(fleet)
        return TrafficView(
            steps=list(rules.steps),
            step_for=rules.step_for,
            frozen=rules.frozen,
            nodes=[
                _shown(self._book.wanted.get(name), each, rules, now) for name, each in seen.items()
            ],
        )


def _shown(wanted: Wanted | None, seen: Seen, rules: Rules, now: float) -> NodeTraffic:
    view = seen.view
    steps = list(rules.steps if wanted is None else rules.pace(wanted).steps)
    cohort = None if view.cohort is None else view.cohort.state
    shown = NodeTraffic(
        node=view.name,
        actual=view.weight,
        cohort=cohort,
        told=0 if cohort in NOT_ASKED else view.weight,
        steps=len(steps),
        waits=describe(wanted, seen, rules, now),
        asked_by=asked_by(view),
        release=view.release,
    )
    if wanted is None:
        return shown
    return shown.model_copy(
        update={
            "desired": wanted.percent,
            "by": wanted.by,
            "reason": wanted.reason,
            "since": wanted.since,
            "pinned": wanted.pinned,
            "rollout": wanted.rollout,
            "id": wanted.id,
            "step": steps.index(wanted.percent) + 1 if wanted.percent in steps else None,
        }
    )
