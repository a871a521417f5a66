"""Puts together what tells people what happens: alerts, the archive of a rollout, and the stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from coordinator.alerts.book import AlertBook
from coordinator.alerts.channels import make_channels
from coordinator.alerts.config import load_alerts_config
from coordinator.alerts.courier import Courier
from coordinator.alerts.formats import Origin
from coordinator.alerts.lookout import Lookout
from coordinator.api.alerts import AlertsApi
from coordinator.api.events import EventsApi
from coordinator.api.evidence import EvidenceApi
from coordinator.api.routes import Resource
from coordinator.evidence.collect import Collector
from coordinator.fleet import FleetState
from coordinator.home import HomePaths, KeyRing
from coordinator.notifier import Notifier
from coordinator.repository import Repository
from coordinator.rollout.engine import Settings
from coordinator.store.alerts import AlertStore
from coordinator.store.database import Database
from coordinator.store.events import EventLog
from coordinator.store.evidence import ABOUT_ROLLOUTS, EvidenceStore
from coordinator.store.queries import Queries
from shared.clock import Clock


class Telling:
    """`open` before anything else; `work` is what goes on for ever, by name."""

    def __init__(
        self,
        database: Database,
        repository: Repository,
        ring: KeyRing,
        fleet: FleetState,
        notifier: Notifier,
        clock: Clock,
        settings: Settings,
        evidence: EvidenceStore,
    ) -> None:
        self._database, self._repository, self._ring = database, repository, ring
        self._fleet, self._notifier, self._clock = fleet, notifier, clock
        self._settings, self._evidence = settings, evidence
        self._store = AlertStore(database)

    async def open(self, stack: AsyncExitStack, paths: HomePaths, url: str) -> None:
        """Channels are read at the start: a file that is wrong keeps the coordinator from starting."""
        clock, keys = self._clock, self._ring.current
        config = await asyncio.to_thread(load_alerts_config, paths.alerts)
        origin = Origin(keys.fleet, keys.name, url)
        channels = await asyncio.to_thread(make_channels, config, paths.root, origin, clock)
        for each in channels:
            stack.push_async_callback(each.close)
        await self._store.keep_channels([each.name for each in channels])
        couriers = [Courier(each, self._store, clock) for each in channels]
        self._book = AlertBook(self._store, config.channel, couriers, self._notifier.notify, clock)
        self._lookout = Lookout(
            self._fleet,
            Queries(self._database),
            self._repository,
            self._settings,
            self._book.broken,
            clock,
        )
        by_name = {each.name: each for each in channels}
        self._alerts = AlertsApi(self._book, self._store, config.channel, by_name, clock)

    def resources(self) -> tuple[Resource, ...]:
        collector = Collector(
            self._evidence,
            self._store,
            self._repository,
            self._ring,
            ABOUT_ROLLOUTS,
            self._clock,
        )
        return (
            self._alerts,
            EvidenceApi(collector),
            EventsApi(EventLog(self._database), self._notifier, self._clock),
        )

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {"alerts": self._book.run(self._lookout.scene)}
