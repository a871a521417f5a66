"""Requests and answers: aiohttp with the deadlines and caps that it does not set by itself (LIBRARIES.md).

Content codings are refused in both directions: nothing here needs them, and what is not inflated
cannot be a bomb (fault 28).
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import structlog
from aiohttp import web

from shared.canonical import MAX_JSON_BYTES
from shared.errors import (
    BadInputError,
    NotFoundError,
    RollcallError,
    TooLargeError,
    UnavailableError,
)
from shared.fleet import Refusal
from shared.protocol import (
    FIRST,
    HEADER,
    SPOKEN,
    ProtocolError,
    ProtocolRange,
    check_overlap,
)
from shared.roster import PeerCertificate
from shared.tls import read_peer
from shared.wire import Wire

BODY_DEADLINE_S = 30.0
KEEPALIVE_S = 75.0
JSON_UTF8 = "application/json; charset=utf-8"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
W = TypeVar("W", bound=Wire)
log = structlog.get_logger()

_DECODE_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


def problem_of(error: RollcallError) -> dict[str, Any]:
    """RFC 9457, with a stable `code` and what to do next."""
    return {
        "type": "about:blank",
        "title": error.code,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "remedy": error.remedy,
    }


def problem(error: RollcallError) -> web.Response:
    return web.json_response(
        problem_of(error), status=error.http_status, content_type="application/problem+json"
    )


@dataclass(frozen=True)
class Speaker:
    """Which side an application is, in words for people, and what it speaks."""

    name: str = "this side"
    speaks: ProtocolRange = SPOKEN


SPEAKER: Final = web.AppKey("speaker", Speaker)


@web.middleware
async def negotiate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nobody whose protocols do not overlap with ours is answered. A node that says nothing is one of
    before ranges; load balancers and people need not say anything."""
    own, peer, said = request.app[SPEAKER], caller(request), request.headers.get(HEADER)
    if said is not None or peer is not None:
        theirs = FIRST if said is None else ProtocolRange.parse(said)
        if not own.speaks.overlaps(theirs):
            there = "the caller" if peer is None else f"the agent of {peer.name}"
            check_overlap(own.speaks, theirs, here=own.name, there=there)
    return await handler(request)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where an error becomes an answer. A surprise is logged and says nothing."""
    try:
        _refuse_coded(request)
        return await handler(request)
    except RollcallError as error:
        return problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _unrouted(request, error)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("request failed", path=request.path, method=request.method)
        return problem(RollcallError("something went wrong here; the log has the details"))


def _unrouted(request: web.Request, error: web.HTTPException) -> web.Response:
    """What aiohttp refuses before a handler is found. Who speaks a later version asks for what is not here yet, and
    knows it by the code."""
    where, remedy = f"{request.method} {request.path[:200]}", None
    words, headers = f"{where}: {error.reason}", {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers = {"Allow": error.headers["Allow"]}
        words, remedy = f"{where} is not served", f"served there: {headers['Allow']}"
    elif error.status == HTTPStatus.NOT_FOUND:
        words = f"there is nothing at {where}"
    failure = RollcallError(words, remedy=remedy)
    failure.code, failure.http_status = "http", error.status  # type: ignore[misc]
    answer = problem(failure)
    answer.headers.update(headers)
    return answer


class CodedBodyError(BadInputError):
    """A request whose body has a content coding. RFC 9110, 15.5.16."""

    code = "coded-body"
    http_status = 415


def _refuse_coded(request: web.Request) -> None:
    if (coding := _coding(request)) is not None:
        raise CodedBodyError(
            f"a body with the content coding {coding[:40]!r}", remedy="send it as it is"
        )


def _coding(message: web.Request | aiohttp.ClientResponse) -> str | None:
    """The content codings other than identity, as they stand in the headers; None without any."""
    named = ", ".join(message.headers.getall("Content-Encoding", []))
    return None if named.strip().lower() in ("", "identity") else named


def guard(headers: MutableMapping[str, str]) -> None:
    """No guessing of types, nothing kept by caches unless the handler allowed it, and no version
    numbers of the libraries beneath for those who look for holes."""
    headers["Server"] = "rollcall"
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")


def application(speaker: Speaker | None = None) -> web.Application:
    app = web.Application(middlewares=[problems, negotiate])
    app[SPEAKER] = speaker = speaker or Speaker()
    spoken = speaker.speaks.header

    async def guard_answer(_: web.Request, answer: web.StreamResponse) -> None:
        guard(answer.headers)
        answer.headers[HEADER] = spoken

    app.on_response_prepare.append(guard_answer)
    return app


async def read_wire(request: web.Request, model: type[W]) -> W:
    """Body to model. Raises BadInputError, and what `read_body` raises."""
    return model.from_bytes(await read_body(request))


class TooSlowError(BadInputError):
    """A body that did not arrive in time. RFC 9110, 15.5.9."""

    code = "too-slow"
    http_status = 408


async def read_body(
    request: web.Request, *, limit: int = MAX_JSON_BYTES, deadline_s: float = BODY_DEADLINE_S
) -> bytes:
    """At most `limit` bytes. Raises TooLargeError before it has kept more than that, and TooSlowError
    for a body that is not complete after `deadline_s` seconds, however steadily it trickles."""
    parts: list[bytes] = []
    size = 0
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"a body of more than {limit} bytes")
    try:
        if request.content.is_eof():
            return _within(request.content.read_nowait(), limit)
        async with asyncio.timeout(deadline_s):
            while size <= limit and (chunk := await request.content.read(1 << 16)):
                parts.append(chunk)
                size += len(chunk)
    except TimeoutError:
        raise TooSlowError(f"the body did not arrive within {deadline_s:g} s") from None
    return _within(b"".join(parts), limit)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLargeError(f"a body of more than {limit} bytes")
    return body


def wire_response(value: Wire, *, status: int = 200) -> web.Response:
    return web.Response(
        body=value.model_dump_json().encode(), status=status, headers={"Content-Type": JSON_UTF8}
    )


PEER: Final = web.RequestKey[PeerCertificate | None]("peer")
"""Of a request: its `caller`, where the listener knows it already."""


def caller(request: web.Request) -> PeerCertificate | None:
    """The certificate that TLS has verified on this connection."""
    if PEER in request:
        return request[PEER]
    transport = request.transport
    return read_peer(transport.get_extra_info("peercert") if transport else None)


FORGETS_CLOSED: Final = sys.version_info < (3, 12, 7) or sys.version_info[:3] == (3, 13, 0)
"""There aiohttp has to be told to end what it has closed: a TLS connection that waits for the other side's
goodbye is otherwise left open when the session closes."""


def session(
    *,
    context: ssl.SSLContext | None = None,
    per_host: int = 8,
    headers: Mapping[str, str] | None = None,
    unix_socket: Path | None = None,
    speaks: ProtocolRange | None = SPOKEN,
) -> aiohttp.ClientSession:
    """Neither cookies nor proxies from the environment, and answers are never inflated. Everything
    goes to `unix_socket` when there is one. `speaks` goes with every request and must overlap with what
    every answer says; None is for servers that are none of ours."""
    spoken = {} if speaks is None else {HEADER: speaks.header}
    connector: aiohttp.BaseConnector
    if unix_socket is not None:
        connector = aiohttp.UnixConnector(str(unix_socket))
    else:
        connector = aiohttp.TCPConnector(
            ssl=context if context is not None else True,
            limit=256,
            limit_per_host=per_host,
            keepalive_timeout=KEEPALIVE_S - 15,
            enable_cleanup_closed=FORGETS_CLOSED,
        )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"Accept-Encoding": "identity", **spoken, **(headers or {})},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
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

    Raises UnavailableError when nobody answered, the refusal with its reason when somebody did, and
    BadInputError for an answer that is too large, has a content coding, or points elsewhere: whom we
    speak to is decided by our configuration alone.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=5)
    try:
        async with client.request(
            method, url, timeout=timeout, allow_redirects=False, **options
        ) as response:
            _refuse_detour(response)
            _check_spoken(client, response)
            body = await _read_capped(response, max_answer)
            if response.status < 300:
                return body
            raise refusal_of(response.status, body)
    except _DECODE_ERRORS as error:
        raise _no_answer(url, error) from error


async def lines(
    client: aiohttp.ClientSession, url: str, *, silent_s: float, **options: Any
) -> AsyncGenerator[str]:
    """Of an answer that goes on for as long as the other side likes. Raises what `call` raises; UnavailableError also
    when nothing comes for `silent_s`."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silent_s)
    try:
        async with client.get(url, timeout=timeout, allow_redirects=False, **options) as response:
            _refuse_detour(response)
            _check_spoken(client, response)
            if response.status >= 300:
                raise refusal_of(response.status, await _read_capped(response, MAX_JSON_BYTES))
            async for line in response.content:
                yield line.decode("utf-8", "replace")
    except _DECODE_ERRORS as error:
        raise _no_answer(url, error) from error
    except ValueError as error:
        raise BadInputError(f"{url} answered with a line that is too long") from error


def _no_answer(url: str, error: Exception) -> UnavailableError:
    """In as few words as an operator needs: what the connection itself says is enough."""
    detail = str(error) or type(error).__name__
    reason = getattr(error, "os_error", None)
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(
        error, aiohttp.ClientSSLError
    ):
        detail = _in_short(reason) or detail
    elif isinstance(error, TimeoutError):
        detail = "not in time"
    return UnavailableError(f"no answer from {url.split('?', maxsplit=1)[0]}: {detail}")


def _in_short(error: OSError | None) -> str:
    """asyncio's own words name the address twice."""
    if error is None:
        return ""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or ""


def _check_spoken(client: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
    """An answer that says nothing is of a side from before ranges. Refusals speak for themselves."""
    own, said = client.headers.get(HEADER), response.headers.get(HEADER)
    if own is None or response.status >= 300:
        return
    theirs = FIRST if said is None else ProtocolRange.parse(said)
    there = f"the other side at {response.url.origin()}"
    check_overlap(ProtocolRange.parse(own), theirs, here="this side", there=there)


def is_about_protocol(error: Exception) -> bool:
    """Whether two sides have no protocol in common, found here or there."""
    refused = isinstance(error, RefusedError) and error.refused_code == ProtocolError.code
    return refused or isinstance(error, ProtocolError)


def _refuse_detour(response: aiohttp.ClientResponse) -> None:
    origin = response.url.origin()
    if 300 <= response.status < 400:
        raise BadInputError(
            f"{origin} answered with a redirect ({response.status}), which is not followed",
            remedy="put the address that it should have into the configuration",
        )
    if (coding := _coding(response)) is not None:
        raise BadInputError(f"{origin} answered with the content coding {coding[:40]!r}")


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


@contextmanager
def missing_as(reason: str) -> Iterator[None]:
    """A refusal with 404 becomes a NotFoundError that says `reason`; any other passes through."""
    try:
        yield
    except RefusedError as error:
        if error.status != 404:
            raise
        raise NotFoundError(reason) from error


def refusal_of(status: int, body: bytes) -> RefusedError:
    """What a problem document says, as an error."""
    try:
        value = json.loads(body)
        return RefusedError(status, Refusal.model_validate(value))
    except (ValueError, RecursionError):
        return RefusedError(status, Refusal(title=f"HTTP {status}"))
