"""`/v1/rollouts/{id}/evidence`: everything that a rollout rests on, in one archive."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Media, Resource, Route
from coordinator.evidence.collect import Collector

GZIP = Media("application/gzip")


class EvidenceApi(Resource):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def export(self, call: Call) -> web.Response:
        raw = await self._collector.archive(call.parameters["id"])
        return web.Response(body=raw, content_type=GZIP.type)

    routes = (
        Route(
            "GET",
            "/v1/rollouts/{id}/evidence",
            export,
            Allows.VIEWER,
            "A rollout's plan, history, readiness, signed messages and audit log, signed as a whole.",
            parameters={"id": SHORT_ID},
            answer=GZIP,
            refusals=(404, 409),
        ),
    )
