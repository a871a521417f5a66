"""aiohttp, with the deadlines and caps that it does not set by itself (LIBRARIES.md)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import structlog
from aiohttp import web

from shared.canonical import MAX_JSON_BYTES
from shared.errors import BadInputError, RollcallError, TooLargeError, UnavailableError
from shared.fleet import Refusal
from shared.tls import node_of_certificate
from shared.wire import Wire

BODY_DEADLINE_S = 30.0
SHUTDOWN_S = 2.0
KEEPALIVE_S = 75.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
W = TypeVar("W", bound=Wire)
log = structlog.get_logger()

_DECODE_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


def problem(error: RollcallError) -> web.Response:
    body = {
        "type": "about:blank",
        "title": error.code,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "remedy": error.remedy,
    }
    return web.json_response(
        body, status=error.http_status, content_type="application/problem+json"
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where an error becomes an answer. A surprise is logged and says nothing."""
    try:
        return await handler(request)
    except RollcallError as error:
        return problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        failure = RollcallError(error.reason)
        failure.code, failure.http_status = "http", error.status  # type: ignore[misc]
        return problem(failure)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("request failed", path=request.path, method=request.method)
        return problem(RollcallError("something went wrong here; the log has the details"))


def application() -> web.Application:
    return web.Application(middlewares=[problems])


async def read_wire(request: web.Request, model: type[W]) -> W:
    """Body to model. Raises BadInputError, and TooLargeError for a body above 1 MiB."""
    return model.from_bytes(await read_body(request))


async def read_body(request: web.Request, *, limit: int = MAX_JSON_BYTES) -> bytes:
    """At most `limit` bytes. Raises TooLargeError before it has kept more than that."""
    parts: list[bytes] = []
    size = 0
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"a body of more than {limit} bytes")
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while size <= limit and (chunk := await request.content.read(1 << 16)):
                parts.append(chunk)
                size += len(chunk)
    except TimeoutError:
        raise BadInputError(f"the body did not arrive within {BODY_DEADLINE_S:.0f} s") from None
    if size > limit:
        raise TooLargeError(f"a body of more than {limit} bytes")
    return b"".join(parts)


def wire_response(value: Wire, *, status: int = 200) -> web.Response:
    return web.json_response(text=value.model_dump_json(), status=status)


def caller(request: web.Request) -> str | None:
    """The node whose certificate TLS has verified on this connection."""
    transport = request.transport
    return node_of_certificate(transport.get_extra_info("peercert") if transport else None)


class Server:
    """One listener on one application. `port` is known once it has started."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=SHUTDOWN_S
        )
        self._host, self.port, self._context = host, port, context

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self._host, self.port, ssl_context=self._context, backlog=256
        )
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise RollcallError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}",
                remedy="choose another port in the configuration, or stop what uses it",
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()


def session(
    *,
    context: ssl.SSLContext | None = None,
    per_host: int = 8,
    headers: dict[str, str] | None = None,
) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        ssl=context if context is not None else True,
        limit=256,
        limit_per_host=per_host,
        keepalive_timeout=KEEPALIVE_S - 15,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=15, sock_connect=5),
    )


async def call(
    client: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    timeout_s: float = 15,
    max_answer: int = MAX_JSON_BYTES,
    **options: Any,
) -> bytes:
    """One request. Returns the body of a 2xx answer.

    Raises UnavailableError when nobody answered, and the refusal with its reason when somebody did.
    """
    try:
        async with client.request(
            method, url, timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=5), **options
        ) as response:
            body = await _read_capped(response, max_answer)
            if response.status < 300:
                return body
            raise _refusal(response.status, body)
    except _DECODE_ERRORS as error:
        detail = str(error) or type(error).__name__
        raise UnavailableError(
            f"no answer from {url.split('?', maxsplit=1)[0]}: {detail}"
        ) from error


async def _read_capped(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > limit:
            raise BadInputError(f"an answer of more than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


class RefusedError(RollcallError):
    """The other side understood and said no."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.detail or refusal.title or f"HTTP {status}", remedy=refusal.remedy)
        self.status = status
        self.refused_code = refusal.code
        self.exit_code = 2 if status == 400 else 1  # type: ignore[misc]
        self.http_status = 502  # type: ignore[misc]


def _refusal(status: int, body: bytes) -> RefusedError:
    try:
        value = json.loads(body)
        return RefusedError(status, Refusal.model_validate(value))
    except (ValueError, RecursionError):
        return RefusedError(status, Refusal(title=f"HTTP {status}"))
