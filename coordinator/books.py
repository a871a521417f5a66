"""Puts together what operators write down and read of nodes: settings, drains, upgrades, and the parts of the API
that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coordinator.api.cohorts import CohortsApi
from coordinator.api.nodes import NodesApi
from coordinator.api.operating import OperatingApi
from coordinator.api.routes import Resource
from coordinator.api.settings import SettingsApi
from coordinator.drains import Drains
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.ready import Readiness
from coordinator.repository import Repository
from coordinator.rollout.engine import Engine
from coordinator.settings import SettingsBook
from coordinator.store.cohorts import CohortQueries
from coordinator.store.database import Database
from coordinator.store.nodes import NodeQueries
from coordinator.store.queries import Queries
from coordinator.store.settings import SettingQueries
from coordinator.store.upgrades import UpgradeQueries
from coordinator.upgrades import UpgradeBook
from shared.clock import Clock


@dataclass(frozen=True)
class Books:
    database: Database
    repository: Repository
    nodes: NodeQueries
    clock: Clock
    settings: SettingsBook
    drains: Drains
    upgrades: UpgradeBook

    @classmethod
    async def open(
        cls,
        database: Database,
        repository: Repository,
        nodes: NodeQueries,
        clock: Clock,
        notifier: Notifier,
        live: Callable[[], Iterable[str]],
    ) -> Books:
        """`live` names the nodes of the roster; it is asked once the fleet is there."""
        settings = SettingsBook(SettingQueries(database), clock, notifier.notify)
        queries = CohortQueries(database)
        drains = Drains(queries, settings.current, clock, notifier.notify, live)
        await drains.load(await nodes.nodes())
        upgrades = UpgradeBook(UpgradeQueries(database), clock, lambda: repository.releases)
        await upgrades.load()
        return cls(database, repository, nodes, clock, settings, drains, upgrades)

    async def resources(
        self, version: str, fleet: FleetState, engine: Engine
    ) -> tuple[Resource, ...]:
        readiness = Readiness(
            self.database,
            self.repository,
            self.clock,
            lambda: engine.looked,
            self.drains.count,
            self.settings.current,
        )
        await readiness.open()
        queries = Queries(self.database)
        return (
            SettingsApi(self.settings),
            NodesApi(self.nodes, fleet, self.upgrades),
            CohortsApi(self.drains),
            OperatingApi(version, readiness, fleet, self.drains, queries, self.clock),
        )
