"""`/livez` and `/v1/openapi.json`: what the coordinator says of itself, to anyone."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import JSON, Call, Resource, Route
from shared.wire import Wire


class Live(Wire):
    status: str
    version: str


class AboutApi(Resource):
    def __init__(self, version: str, description: dict[str, Any]) -> None:
        self._live = Live(status="live", version=version)
        self._description = json.dumps(description)

    async def live(self, _: Call) -> Live:
        return self._live

    async def openapi(self, _: Call) -> web.Response:
        return web.json_response(text=self._description)

    routes = (
        Route("GET", "/livez", live, Allows.ANYONE, "Whether this process answers.", answer=Live),
        Route(
            "GET",
            "/v1/openapi.json",
            openapi,
            Allows.ANYONE,
            "This description.",
            answer=JSON,
        ),
    )
