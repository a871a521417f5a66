"""`/v1/health`, `/v1/ready`, `/v1/operator-metrics`, `/metrics`: how this coordinator and its fleet are."""

from __future__ import annotations

import asyncio

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Media, Resource, Route
from coordinator.drains import Drains
from coordinator.fleet import FleetState
from coordinator.metrics import count_backlog, count_nodes, count_rollouts, count_workers, render
from coordinator.ready import Readiness
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.exposition import CONTENT_TYPE, read_process
from shared.http import wire_response
from shared.operating import CoordinatorNumbers, OperatorMetrics, Ready
from shared.rollout import NodeView
from shared.wire import Wire

COUNTED_ROLLOUTS = 100
TEXT = Media("text/plain")


class Serving(Wire):
    status: str = "serving"
    version: str


class OperatingApi(Resource):
    """`/v1/ready` is for anyone: who balances load over coordinators has no token. It names no file and no node
    but those whose work is blocked."""

    def __init__(
        self,
        version: str,
        readiness: Readiness,
        fleet: FleetState,
        drains: Drains,
        queries: Queries,
        clock: Clock,
    ) -> None:
        self._version, self._readiness, self._fleet = version, readiness, fleet
        self._drains, self._queries, self._clock = drains, queries, clock
        self._started = clock.now()

    async def health(self, _: Call) -> Serving:
        return Serving(version=self._version)

    async def ready(self, _: Call) -> web.Response:
        found = await self._readiness.read()
        return wire_response(found, status=200 if found.ready else 503)

    async def numbers(self, _: Call) -> OperatorMetrics:
        ready, views = await self._readiness.read(), await self._fleet.nodes()
        return await self._count(ready, views)

    async def metrics(self, _: Call) -> web.Response:
        ready, views = await self._readiness.read(), await self._fleet.nodes()
        numbers = await self._count(ready, views)
        text = render(numbers, views, await asyncio.to_thread(read_process))
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _count(self, ready: Ready, views: list[NodeView]) -> OperatorMetrics:
        cohorts = self._drains.count()
        recent = await self._queries.recent_rollouts(COUNTED_ROLLOUTS)
        return OperatorMetrics(
            at=self._clock.now(),
            coordinator=CoordinatorNumbers(
                version=self._version,
                schema_revision=self._readiness.wanted_revision,
                started=self._started,
                ready=ready.ready,
            ),
            nodes=count_nodes(views),
            workers=count_workers(cohorts),
            backlog=count_backlog(cohorts),
            rollouts=count_rollouts([rollout for rollout, _ in recent]),
            open_reds=sum(red.open for red in await self._fleet.reds()),
        )

    routes = (
        Route(
            "GET",
            "/v1/health",
            health,
            Allows.ANYONE,
            "Whether this process serves.",
            answer=Serving,
        ),
        Route(
            "GET",
            "/v1/ready",
            ready,
            Allows.ANYONE,
            "Whether this coordinator has all that it needs; 503 with the reasons when it has not.",
            answer=Ready,
            success=(200, 503),
        ),
        Route(
            "GET",
            "/v1/operator-metrics",
            numbers,
            Allows.VIEWER,
            "The whole fleet in numbers: nodes, workers, backlog, rollouts.",
            answer=OperatorMetrics,
        ),
        Route(
            "GET",
            "/metrics",
            metrics,
            Allows.VIEWER,
            "The same as Prometheus reads it.",
            answer=TEXT,
        ),
    )
