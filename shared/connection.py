"""One accepted connection with its deadlines, and the crowd of all (listener.py opens them)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from shared.errors import BadInputError, RollcallError
from shared.http import KEEPALIVE_S, guard, problem
from shared.roster import PeerCertificate
from shared.tls import read_peer

LINGER_S = 2.0
"""How long the rest of a refused body is read and thrown away. Closing at once would make the kernel
send a reset, and the answer could be lost with it (RFC 9112, 9.6)."""

HANDLER_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": KEEPALIVE_S,
    "lingering_time": LINGER_S,
    "auto_decompress": False,
    "max_line_size": 4096,
    "max_field_size": 4096,
    "max_headers": 64,
}

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """`handshake_s`: from the accepted connection to the end of TLS's handshake; `head_s`: from there,
    or from a later request's first byte, to the end of the request's head; `stall_s`: how long none of
    an answer may be taken. In seconds."""

    connections: int = 1024
    handshake_s: float = 10.0
    head_s: float = 10.0
    stall_s: float = 30.0


class Deadline:
    """Calls `missed` unless it is stopped in time. Starting it while it runs does not put it off.

    A timer that was stopped is left to run out, and used again by what is started meanwhile: a timer for each of
    a connection's requests, and taking it back, costs more than all else here.
    """

    __slots__ = ("_ends", "_loop", "_missed", "_timer")

    def __init__(self, missed: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._missed, self._loop = missed, loop
        self._ends: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Each time as many seconds."""
        if self._ends is None:
            self._ends = self._loop.time() + seconds
            if self._timer is None:
                self._timer = self._loop.call_at(self._ends, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._ends is None:
            return
        if self._ends > self._loop.time():
            self._timer = self._loop.call_at(self._ends, self._ring)
            return
        self._ends = None
        self._missed()

    def stop(self) -> None:
        self._ends = None

    def close(self) -> None:
        """For good."""
        self._ends = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(web.RequestHandler):
    """One accepted connection, from before its TLS handshake to its end.

    A later head of which the beginning came together with the request before it has no timer of its
    own; aiohttp's keep-alive timer ends it, as that one only asks whether a request is complete.
    """

    def __init__(
        self, manager: web.Server, crowd: Crowd, accepted: socket.socket, limits: Limits
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(manager, loop=loop, **HANDLER_OPTIONS)
        self._crowd, self._limits = crowd, limits
        self.accepted = accepted
        """Whose handshake is not over yet."""
        self._head, self._stall = Deadline(self.end, loop), Deadline(self._end_if_stalled, loop)
        self._unsent = 0
        self._idle = False
        self._made: asyncio.Transport | None = None
        """aiohttp forgets its own when it begins to close, and TLS may take its time to end."""
        self._request_now: web.BaseRequest | None = None
        self.peer: PeerCertificate | None = None
        """The certificate that TLS has verified."""
        self.retiring = False
        """Its next answer is its last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self._made = transport
            self.peer = read_peer(transport.get_extra_info("peercert"))
        self._head.start(self._limits.head_s)

    def data_received(self, data: bytes) -> None:
        if data and self._idle:
            self._head.start(self._limits.head_s)
        super().data_received(data)

    def pause_writing(self) -> None:
        """More of an answer waits than asyncio cares to buffer: now the client has to take some."""
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        self._stall.stop()
        super().resume_writing()

    def _watch_stall(self) -> None:
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()
        self._stall.start(self._limits.stall_s)

    def _end_if_stalled(self) -> None:
        if self.transport is None or self.transport.get_write_buffer_size() >= self._unsent:
            self.end()
        else:
            self._watch_stall()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head.close()
        self._stall.close()
        self._crowd.remove(self)
        super().connection_lost(exc)

    def head_complete(self, request: web.BaseRequest) -> None:
        self._request_now = request
        self._head.stop()
        self._idle = False
        self._crowd.set_busy(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """An answer given before the whole body came says that the connection ends with it."""
        if self.retiring or not request.content.is_eof():
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._head.stop()
            self._request_now = None
            self._idle = True
            self._crowd.set_idle(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """For what never reached the application. aiohttp's own page echoes the bytes that it did not
        understand, names its version, and logs a traceback for each."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer has been sent already")
        if status < 500:
            log.debug("malformed request", remote=request.remote, reason=type(exc).__name__)
            answer = problem(BadInputError("this is not HTTP/1.1, or its head is too large"))
        else:
            log.error("request failed", exc_info=exc)
            answer = problem(RollcallError("something went wrong here; the log has the details"))
        guard(answer.headers)
        answer.force_close()
        return answer

    @property
    def is_strangers_upload(self) -> bool:
        request = self._request_now
        return self.peer is None and request is not None and not request.content.is_eof()

    def end(self) -> None:
        """At once, in whatever state: in the handshake there is no transport to abort yet."""
        self._crowd.remove(self)
        if self._made is not None:
            self._made.abort()
            return
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.accepted, socket.SHUT_RDWR)


class Crowd:
    """The open connections, in the order in which they have to go when others need their places."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._silent: OrderedDict[Connection, None] = OrderedDict()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._busy: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._idle) + len(self._busy)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._limit

    def add(self, connection: Connection) -> None:
        self._silent[connection] = None

    def set_busy(self, connection: Connection) -> None:
        if self.remove(connection):
            self._busy[connection] = None

    def set_idle(self, connection: Connection) -> None:
        """Nothing for one that is gone: an answer may end after its connection did."""
        if self.remove(connection):
            self._idle[connection] = None

    def remove(self, connection: Connection) -> bool:
        """Whether it was there."""
        for places in (self._silent, self._idle, self._busy):
            if connection in places:
                del places[connection]
                return True
        return False

    def retire_all(self) -> None:
        for connection in [*self._silent, *self._idle]:
            connection.end()
        for connection in self._busy:
            connection.retiring = True

    def end_all(self) -> None:
        for connection in [*self._silent, *self._idle, *self._busy]:
            connection.end()

    def make_room(self) -> bool:
        """End the oldest connection without a first request, else the one that has been idle for
        longest, else the oldest that still sends a body and showed no certificate. False when all
        others are busy."""
        leaving = next(iter(self._silent or self._idle), None)
        if leaving is None:
            leaving = next((each for each in self._busy if each.is_strangers_upload), None)
        if leaving is not None:
            leaving.end()
        return leaving is not None
