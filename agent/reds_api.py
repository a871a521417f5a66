"""`/v1/reds` and `/v1/reds/stream`: failure broadcasts as server-sent events (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.feed import Feed, Page
from shared.errors import BadInputError, NotFoundError
from shared.http import wire_response
from shared.wire import MAX_INTEGER, Wire

STREAM_TYPE = "text/event-stream"
WRITE_S = 10.0
"""Who has not taken what was sent by then is let go, and comes again with the last id it saw."""
RETRY_MS = 1000


class SignedRed(Wire):
    """The envelope that the origin signed: what an operator's clear is drafted from."""

    red: str


def add_reds(app: web.Application, feed: Feed) -> web.Application:
    async def red(request: web.Request) -> web.Response:
        key = request.match_info["key"]
        found = await feed.inbox.envelope(key)
        if found is None:
            raise NotFoundError(
                f"no red {key[:80]} is here", remedy="list them: rollcall-agent reds"
            )
        return wire_response(SignedRed(red=found))

    async def reds(_: web.Request) -> web.Response:
        return wire_response(await feed.inbox.listing())

    async def stream(request: web.Request) -> web.StreamResponse:
        async with feed.subscribe(_last_id(request)) as pages:
            answer = web.StreamResponse(headers={"Content-Type": STREAM_TYPE})
            await answer.prepare(request)
            await _write(answer, f"retry: {RETRY_MS}\n\n")
            async for page in pages:
                if not await _write(answer, render(page)):
                    break
        return answer

    async def close(_: web.Application) -> None:
        feed.close()

    app.router.add_get("/v1/reds", reds)
    app.router.add_get("/v1/reds/stream", stream)
    app.router.add_get("/v1/reds/{key}", red)
    app.on_shutdown.append(close)
    return app


async def _write(answer: web.StreamResponse, text: str, limit_s: float = WRITE_S) -> bool:
    """False once the reader is too slow or gone."""
    try:
        async with asyncio.timeout(limit_s):
            await answer.write(text.encode())
    except (TimeoutError, ConnectionError):
        answer.force_close()
        return False
    return True


def render(page: Page) -> str:
    """The last block, an id without data, moves the reader's place and tells it nothing; a comment keeps an
    idle connection from being taken for a dead one."""
    blocks = [
        f"id: {event.id}\nevent: {event.event}\ndata: {event.model_dump_json()}\n\n"
        for event in page.events
    ]
    if not page.events:
        blocks.append(": nothing new\n\n")
    if not page.events or page.events[-1].id != page.after:
        blocks.append(f"id: {page.after}\n\n")
    return "".join(blocks)


def _last_id(request: web.Request) -> int | None:
    """Also as `?after=ID`, for who begins anew and knows where it stopped. Raises BadInputError."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_INTEGER):
        raise BadInputError(
            f"{text[:40]!r} is no id of an event", remedy="leave it out to begin anew"
        )
    return int(text)
