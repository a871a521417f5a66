"""The server side of a TLS connection, directly on its socket.

asyncio's own goes through two memory buffers, a protocol and two transports for each connection: 18 KiB more than the
connection itself, which thousands that wait have all at once, and several times as many calls for each request. This
one lets OpenSSL read and write the socket. It does what a protocol of a listener needs, and no renegotiation or change
of protocol: TLS 1.3 knows none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

RECORD = 16 << 10
"""Bytes of one record of TLS at most. So much is sent at once, so that who takes little at a time is seen to take."""
HIGH_WATER = 64 << 10
READS_AT_ONCE = 4
"""Records that one connection may have read before the others have their turn."""


async def shake_hands(sock: ssl.SSLSocket, timeout_s: float) -> None:
    """Raises OSError (ssl.SSLError, TimeoutError) when it fails; the socket is the caller's to close."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                await _until(sock, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _until(sock, loop.add_writer, loop.remove_writer)
            else:
                return


async def _until(
    sock: socket.socket, add: Callable[..., Any], remove: Callable[[int], bool]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    number = sock.fileno()
    add(number, _wake, ready)
    try:
        await ready
    finally:
        remove(number)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class TlsTransport(asyncio.Transport):
    """After the handshake. `linger_s` is how long it waits for the other side's goodbye after its own: a socket that
    is closed with unread bytes takes back what was sent last (RFC 9112, 9.6)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: ssl.SSLSocket,
        protocol: asyncio.Protocol,
        linger_s: float,
    ) -> None:
        super().__init__()
        self._loop, self._sock, self._protocol = loop, sock, protocol
        self._linger_s = linger_s
        self._number = sock.fileno()
        self._out = bytearray()
        """What could not be sent yet."""
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._is_paused = False
        """The protocol was told not to write."""
        self._reads = True
        self._closing = self._lost = False
        self._goodbye: asyncio.TimerHandle | None = None
        protocol.connection_made(self)
        if not self._closing:
            loop.add_reader(self._number, self._readable)
            loop.call_soon(self._readable)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        try:
            if name == "peercert":
                return self._sock.getpeercert()
            if name == "peername":
                return self._sock.getpeername()
            if name == "sockname":
                return self._sock.getsockname()
        except (OSError, ValueError):
            return default
        known = {"socket": self._sock, "ssl_object": self._sock, "sslcontext": self._sock.context}
        return known.get(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reads and not self._closing

    def pause_reading(self) -> None:
        if self.is_reading():
            self._reads = False
            self._loop.remove_reader(self._number)

    def resume_reading(self) -> None:
        """OpenSSL may hold a part of a record already, of which the kernel says nothing."""
        if not self._reads and not self._closing:
            self._reads = True
            self._loop.add_reader(self._number, self._readable)
            self._loop.call_soon(self._readable)

    def _readable(self) -> None:
        for _ in range(READS_AT_ONCE):
            if not self.is_reading():
                return
            try:
                data = self._sock.recv(RECORD)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._lose(error)
                return
            if not data:
                self._protocol.eof_received()
                self.close()
                return
            self._protocol.data_received(data)
            if not self._lost and not self._sock.pending():
                return
        self._loop.call_soon(self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        waits = bool(self._out)
        self._out += data
        if not waits:
            self._send()
        if len(self._out) > self._high and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def _send(self) -> None:
        """As many whole records as go. One that went in part is offered again with the same bytes at its beginning,
        as OpenSSL wants it."""
        sent = 0
        try:
            while sent < len(self._out):
                sent += self._sock.send(self._out[sent : sent + RECORD])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._loop.add_writer(self._number, self._writable)
        except OSError as error:
            self._lose(error)
            return
        del self._out[:sent]

    def _writable(self) -> None:
        if self._lost:
            return
        self._loop.remove_writer(self._number)
        self._send()
        if self._is_paused and len(self._out) <= self._low:
            self._is_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._lost and not self._out:
            self._say_goodbye()

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low

    def close(self) -> None:
        """In `linger_s` what was written is sent, and the other side says goodbye."""
        if self._closing:
            return
        self._closing = True
        self._goodbye = self._loop.call_later(self._linger_s, self._lose, None)
        self._loop.remove_reader(self._number)
        if not self._out:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        try:
            self._sock.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._loop.add_reader(self._number, self._throw_away)
            self._loop.call_soon(self._throw_away)
        except (OSError, ValueError):
            self._lose(None)
        else:
            self._lose(None)

    def _throw_away(self) -> None:
        """Until the other side ends."""
        if self._lost:
            return
        try:
            while self._sock.recv(RECORD):
                pass
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except (OSError, ValueError):
            pass
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._out.clear()
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._loop.remove_reader(self._number)
        self._loop.remove_writer(self._number)
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            with contextlib.suppress(OSError):
                self._sock.close()
