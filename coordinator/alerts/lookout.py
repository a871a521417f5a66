"""Puts together what the rules look at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from coordinator.alerts.scene import Broken, Scene
from coordinator.fleet import FleetState
from coordinator.repository import Repository
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.fleetsettings import FleetSettings


class Lookout:
    """`settings` gives what operators have set; `broken` the channels whose receivers take nothing."""

    def __init__(
        self,
        fleet: FleetState,
        queries: Queries,
        repository: Repository,
        settings: Callable[[], Awaitable[FleetSettings]],
        broken: Callable[[], Mapping[str, Broken]],
        clock: Clock,
    ) -> None:
        self._fleet, self._queries, self._repository = fleet, queries, repository
        self._settings, self._broken, self._clock = settings, broken, clock
        self._started = clock.now()

    async def scene(self) -> Scene:
        watched = await self._fleet.watched()
        last = await self._queries.last_rollout()
        return Scene(
            now=self._clock.now(),
            started=self._started,
            nodes=watched,
            reds=await self._fleet.reds(),
            witnesses=self._fleet.witnesses,
            rollout=None if last is None else last[0],
            settings=await self._settings(),
            metadata=self._repository.expiries(),
            authorities=await asyncio.to_thread(self._repository.authority_expiries),
            broken=self._broken(),
        )
