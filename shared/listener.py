"""The server side of HTTP: aiohttp behind a listener that bounds what strangers may hold open (fault 29).

aiohttp 3.14 ends a silent connection by its keep-alive timer only, waits for ever for a client that
does not take its answer, leaves the TLS handshake to asyncio's 60 s, and does not count. asyncio
tells a protocol of a TLS connection after the handshake, so whoever wants to count and end those in
their handshake has to accept them himself; `connect_accepted_socket` does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from shared.errors import BadInputError, RollcallError
from shared.http import KEEPALIVE_S, Handler, guard, problem

BACKLOG = 256
ACCEPT_RETRY_S = 0.1
COMPLAINT_S = 60.0
SHUTDOWN_S = 2.0
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


def both_families(host: str) -> str:
    """`::` means every address of both families; on a host without IPv6, or that keeps the two apart, those of
    IPv4."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host  # noqa: S104


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
    """Calls `missed` unless it is stopped in time. Starting it while it runs does not put it off."""

    def __init__(self, missed: Callable[[], None]) -> None:
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._miss)

    def _miss(self) -> None:
        self._timer = None
        self._missed()

    def stop(self) -> None:
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
        super().__init__(manager, loop=asyncio.get_running_loop(), **HANDLER_OPTIONS)
        self._crowd, self._accepted, self._limits = crowd, accepted, limits
        self._head, self._stall = Deadline(self.end), Deadline(self._end_if_stalled)
        self._unsent = 0
        self._idle = False
        self._made: asyncio.Transport | None = None
        """aiohttp forgets its own when it begins to close, and TLS may take its time to end."""
        self._request_now: web.BaseRequest | None = None
        self.retiring = False
        """Its next answer is its last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self._made = transport
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
        self._head.stop()
        self._stall.stop()
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
        request, transport = self._request_now, self.transport
        proven = transport is not None and transport.get_extra_info("peercert")
        return not proven and request is not None and not request.content.is_eof()

    def end(self) -> None:
        """At once, in whatever state: in the handshake there is no transport to abort yet."""
        self._crowd.remove(self)
        if self._made is not None:
            self._made.abort()
            return
        with contextlib.suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)


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


class Server:
    """One listener on one application. `port` is known once it has started."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        app.middlewares.insert(0, _tell_connection)
        self._runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_S)
        self._host, self.port, self._context = host, port, context
        self._limits = limits or Limits()
        self._crowd = Crowd(self._limits.connections)
        self._listening: list[socket.socket] = []
        self._handshakes: dict[asyncio.Task[None], Connection] = {}
        self._complained = -COMPLAINT_S

    async def start(self) -> None:
        """Raises RollcallError when the address cannot be had."""
        await self._runner.setup()
        try:
            await self._listen()
        except OSError as error:
            await self.stop()
            raise RollcallError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}",
                remedy="choose another port in the configuration, or stop what uses it",
            ) from error
        self.port = self._listening[0].getsockname()[1]

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another context from here on. Connections that were made under the old one end now, or with
        the answer that they wait for: a retired authority may have vouched for them."""
        self._context = context
        self._crowd.retire_all()

    async def stop(self) -> None:
        """Stop accepting, end what is in its handshake, let requests finish for 2 s."""
        for listening in self._listening:
            self._loop.remove_reader(listening)
            listening.close()
        self._listening = []
        for connection in self._handshakes.values():
            connection.end()
        await asyncio.gather(*self._handshakes)
        await self._runner.cleanup()
        self._crowd.end_all()
        await asyncio.sleep(0)

    async def _listen(self) -> None:
        """On every address that the host name has, as `loop.create_server` does; on `::` for both families."""
        self._loop = asyncio.get_running_loop()
        host = both_families(self._host)
        found = await self._loop.getaddrinfo(
            host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.create_server(
                address[: 2 if family == socket.AF_INET else 4],
                family=family,
                backlog=BACKLOG,
                dualstack_ipv6=host == "::",
            )
            listening.setblocking(False)
            self._listening.append(listening)
        for listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """One a turn of the event loop, so that a flood does not keep requests waiting, and so that
        there is one: without descriptors, Linux answers EMFILE also when nobody waits."""
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._accept_later(listening, error)
            return
        self._admit(accepted)

    def _accept_later(self, listening: socket.socket, error: OSError) -> None:
        """Out of descriptors, mostly (a Mac gives a daemon 256): that is a full house, too."""
        self._complain(error.strerror)
        self._crowd.make_room()
        self._loop.remove_reader(listening)
        self._loop.call_later(ACCEPT_RETRY_S, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def _admit(self, accepted: socket.socket) -> None:
        manager = self._runner.server
        if manager is None or not self._has_room():
            accepted.close()
            return
        connection = Connection(manager, self._crowd, accepted, self._limits)
        self._crowd.add(connection)
        task = self._loop.create_task(self._open(accepted, connection))
        self._handshakes[task] = connection
        task.add_done_callback(self._handshakes.pop)

    def _has_room(self) -> bool:
        if not self._crowd.is_full:
            return True
        self._complain(f"{len(self._crowd)} connections are open")
        return self._crowd.make_room()

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        seconds = None if self._context is None else self._limits.handshake_s
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=None if self._context is None else LINGER_S,
            )
        except OSError as error:
            log.debug("no handshake", reason=str(error) or type(error).__name__)
            connection.end()

    def _complain(self, reason: str | None) -> None:
        """At most once a minute: whoever floods a listener must not fill its log."""
        if self._loop.time() - self._complained >= COMPLAINT_S:
            self._complained = self._loop.time()
            log.warning("connections are turned away", port=self.port, reason=reason)


@web.middleware
async def _tell_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp tells a protocol's subclass nowhere else that a head is complete."""
    if isinstance(request.protocol, Connection):
        request.protocol.head_complete(request)
    return await handler(request)
