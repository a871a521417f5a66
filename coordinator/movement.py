"""Puts together what moves nodes: rollouts, their shares of traffic, orders, and capabilities."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from coordinator.api.attestations import AttestationsApi
from coordinator.api.capabilities import CapabilitiesApi
from coordinator.api.orders import OrdersApi
from coordinator.api.rollouts import RolloutsApi
from coordinator.api.routes import Resource
from coordinator.api.traffic import TrafficApi
from coordinator.capabilities.book import CapabilityBook
from coordinator.capabilities.catalogue import Catalogue
from coordinator.cohorts import blocked_work
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.orders.book import OrderBook
from coordinator.orders.sources import Orders, RolloutOrders
from coordinator.orders.sweep import Sweeper
from coordinator.orders.turns import why_not_now
from coordinator.rollout.engine import Engine, FindRelease, Settings, Sources
from coordinator.rollout.facts import Fleet
from coordinator.rollout.observe import is_out
from coordinator.store.capabilities import CapabilityQueries
from coordinator.store.database import Database
from coordinator.store.orders import OrderQueries
from coordinator.store.queries import Queries
from coordinator.store.rollouts import RolloutStore
from coordinator.store.traffic import TrafficQueries
from coordinator.traffic.book import TrafficBook
from coordinator.traffic.decide import frozen_words
from coordinator.traffic.engine import TrafficEngine, make_id
from coordinator.traffic.snapshots import Snapshots
from shared.clock import Clock
from shared.cohorts import CohortView
from shared.fleetsettings import how_many
from shared.orders import OrderView
from shared.protocol import ProtocolRange
from shared.rollout import Rollout


class Movement:
    """`load` before anything else; `work` is what goes on for ever, by name."""

    def __init__(  # noqa: PLR0913, PLR0917 - one part out of everything that it joins
        self,
        database: Database,
        fleet: FleetState,
        notifier: Notifier,
        clock: Clock,
        speaks: ProtocolRange,
        settings: Settings,
        find_release: FindRelease,
        cohorts: Callable[[], list[CohortView]],
        catalogue: Catalogue,
    ) -> None:
        self._cohorts = cohorts
        self._fleet, self._settings, self._notifier = fleet, settings, notifier
        self._queries, self._store = Queries(database), RolloutStore(database)
        self._shares, self._stored = TrafficQueries(database), OrderQueries(database)
        self.shares = TrafficBook(self._shares, notifier, clock, make_id)
        self._snapshots = Snapshots(self._shares, self.shares, fleet, clock)
        self._traffic = TrafficEngine(
            self.shares, self._snapshots, self._queries, fleet, settings, notifier, clock
        )
        sources = Sources(find_release, settings, self._widen, self._beside)
        self.engine = Engine(self._queries, self._store, fleet, notifier, clock, speaks, sources)
        self.orders = OrderBook(self._stored, notifier, clock, self._live, self._turn)
        upgrades = RolloutOrders(self._queries, self.engine, fleet)
        self._all = Orders([self.orders, upgrades], self._stored)
        self._sweeper = Sweeper(self._all, self.orders, self._stored, settings, clock)
        kept = CapabilityQueries(database)
        self._capabilities = CapabilityBook(kept, catalogue, self.orders, fleet, notifier, clock)

    async def load(self) -> None:
        await self.shares.load()
        await self.orders.load()

    def resources(self) -> tuple[Resource, ...]:
        return (
            RolloutsApi(self._queries, self._store, self._fleet, self.engine, self._notifier),
            AttestationsApi(self._queries, self.engine),
            OrdersApi(self._all, self.orders, self._sweeper),
            TrafficApi(self._traffic, self.shares, self._snapshots, self._shares),
            CapabilitiesApi(self._capabilities),
        )

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "rollouts": self.engine.run(),
            "traffic": self._traffic.run(),
            "orders": self._sweeper.run(),
            "capabilities": self._capabilities.run(),
        }

    def _live(self) -> set[str]:
        return {node.name for node in self._fleet.roster.live()}

    async def _widen(self, rollout: Rollout, fleet: Fleet, _: float) -> Mapping[str, str]:
        """Whoever is in the hands of an order is out, and takes up a slot."""
        await self._traffic.beside(rollout)
        found = await self._traffic.widening(fleet)
        return {name: said for name, said in found.items() if name not in fleet.held}

    async def _beside(self, fleet: Fleet) -> Fleet:
        frozen = self.shares.frozen
        return replace(
            fleet,
            held=self.orders.in_hand,
            stranded=tuple(blocked_work(self._cohorts())),
            ratios_frozen="" if frozen is None else frozen_words(frozen),
        )

    async def _turn(self, order: OrderView, held: set[str]) -> str:
        """Whoever is out for a rollout counts, and whoever has not all of its traffic again after one."""
        fleet, settings = await self._fleet.fleet(), await self._settings()
        found, views = await self.engine.last(), fleet.nodes
        held = held | {node.name for node in (found[0].nodes if found else []) if is_out(node)}
        held |= (await self._traffic.widening(fleet)).keys()
        return why_not_now(order, views, held, how_many(settings.max_unavailable, len(views)))
