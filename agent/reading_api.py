"""The door that only reads, on loopback: for load balancers, monitoring and people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache

from aiohttp import web

from agent import metrics
from agent.api import Facade, Measured
from agent.healthz import HEALTH_TYPE, as_health, as_text, judge_ready, wants_json
from agent.history_api import PATH, history_route
from shared.errors import BadInputError
from shared.exposition import CONTENT_TYPE, read_process
from shared.http import application, wire_response
from shared.readiness import ReadinessDocument, document_schema, without

MAX_NONCE = 64
JSON_TYPE = "application/json; charset=utf-8"
REVALIDATED = "no-cache"
"""May be kept, and asked again with its ETag each time before it is believed (RFC 9111, 5.2.2.4)."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reading_app(facade: Measured) -> web.Application:
    """`/livez`, `/readyz`, `/metrics`, `/v1/readiness` with its schema, `/v1/history`, `/v1/status`."""
    app = application()

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def status(_: web.Request) -> web.Response:
        return wire_response(await facade.report())

    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz_route(facade))
    app.router.add_get("/metrics", metrics_route(facade))
    app.router.add_get("/v1/readiness", readiness_route(facade))
    app.router.add_get("/v1/readiness/schema", schema)
    app.router.add_get("/v1/status", status)
    app.router.add_get(PATH, history_route(facade.history))
    return app


def readyz_route(facade: Facade) -> Handler:
    async def readyz(request: web.Request) -> web.Response:
        """200 when green and taking traffic; otherwise 503 with the reason. `?exclude=ID` as for the document,
        and `traffic` for the node's own drain. `?verbose` says a line a check, or, to who accepts JSON,
        `application/health+json`."""
        excluded = request.query.getall("exclude", [])
        ready = judge_ready(facade.published().document, facade.weight(), excluded)
        code = 200 if ready.is_ready else 503
        facade.told_readiness(request.remote, "200" if ready.is_ready else f"503 {ready.reason}")
        if "verbose" not in request.query:
            return web.json_response(ready.summary(), status=code)
        if wants_json(request.headers.get("Accept", "")):
            body = json.dumps(as_health(ready)).encode()
            return web.Response(body=body, status=code, content_type=HEALTH_TYPE)
        return web.Response(text=as_text(ready), status=code)

    return readyz


def readiness_route(facade: Facade) -> Handler:
    """The document: as it stands in memory, or, where the query asks for more, made for that request."""

    async def readiness(request: web.Request) -> web.StreamResponse:
        published = facade.published()
        if request.query_string:
            document = published.document
            if "verbose" in request.query:
                document = published.verbose()
            return wire_response(_as_asked(request, document))
        if any(tag.value in ("*", published.tag) for tag in request.if_none_match or ()):
            return web.Response(
                status=304, headers={"ETag": published.etag, "Cache-Control": REVALIDATED}
            )
        headers = {
            "Content-Type": JSON_TYPE,
            "ETag": published.etag,
            "Cache-Control": REVALIDATED,
        }
        return web.Response(body=published.body, headers=headers)

    return readiness


def _as_asked(request: web.Request, document: ReadinessDocument) -> ReadinessDocument:
    nonce = request.query.get("nonce")
    if nonce is not None and len(nonce) > MAX_NONCE:
        raise BadInputError(f"a nonce has at most {MAX_NONCE} characters")
    if excluded := request.query.getall("exclude", []):
        document = without(document, excluded)
    return document.model_copy(update={"nonce": nonce})


@cache
def _schema() -> bytes:
    return json.dumps(document_schema()).encode()


async def schema(_: web.Request) -> web.Response:
    return web.Response(body=_schema(), content_type="application/schema+json")


def metrics_route(facade: Facade) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        report, document = await facade.report(), facade.published().document
        process = await asyncio.to_thread(read_process)
        text = metrics.render(report, document, facade.weight(), process)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    return answer
