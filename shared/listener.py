"""The server side of HTTP: aiohttp behind a listener that bounds what strangers may hold open (fault 29).

aiohttp 3.14 ends a silent connection by its keep-alive timer only, waits for ever for a client that
does not take its answer, leaves the TLS handshake to asyncio's 60 s, and does not count. asyncio
tells a protocol of a TLS connection after the handshake, so whoever wants to count and end those in
their handshake has to accept them himself.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl

import structlog
from aiohttp import web

from shared.connection import LINGER_S, Connection, Crowd, Limits
from shared.errors import RollcallError
from shared.http import PEER, Handler
from shared.tlstransport import TlsTransport, shake_hands

BACKLOG = 256
OTHER_FILES = 128
"""Descriptors that a process needs besides those of its connections."""
ACCEPT_RETRY_S = 0.1
COMPLAINT_S = 60.0
SHUTDOWN_S = 2.0

log = structlog.get_logger()


def both_families(host: str) -> str:
    """`::` means every address of both families; on a host without IPv6, or that keeps the two apart, those of
    IPv4."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host  # noqa: S104


def max_connections(wanted: int) -> int:
    """So many, or as many as this process may have descriptors for, which is raised to what the system grants it;
    some are left for everything else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + OTHER_FILES
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return max(1, min(wanted, soft - OTHER_FILES))


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
        if self._context is None:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
            return
        try:
            await self._open_tls(self._context, accepted, connection)
        except OSError as error:
            log.debug("no handshake", reason=str(error) or type(error).__name__)
            connection.end()

    async def _open_tls(
        self, context: ssl.SSLContext, accepted: socket.socket, connection: Connection
    ) -> None:
        accepted.setblocking(False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(accepted)
            accepted.getpeername()  # who is gone already raises here; `wrap_socket` would leave the socket open
            wrapped = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            stack.enter_context(wrapped)
            connection.accepted = wrapped
            await shake_hands(wrapped, self._limits.handshake_s)
            TlsTransport(self._loop, wrapped, connection, LINGER_S)
            stack.pop_all()

    def _complain(self, reason: str | None) -> None:
        """At most once a minute: whoever floods a listener must not fill its log."""
        if self._loop.time() - self._complained >= COMPLAINT_S:
            self._complained = self._loop.time()
            log.warning("connections are turned away", port=self.port, reason=reason)


@web.middleware
async def _tell_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp tells a protocol's subclass nowhere else that a head is complete."""
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.head_complete(request)
        request[PEER] = connection.peer
    return await handler(request)
