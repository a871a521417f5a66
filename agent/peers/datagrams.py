"""Signed datagrams: how an alarm travels when every millisecond counts.

One message or one ack in each, as its DSSE envelope stands; nothing is believed but the signature. Where packets
are lost, a stream makes everything behind the loss wait for TCP's timer; a datagram is simply sent again
(docs/decisions/0021). What does not fit one packet, and whoever does not answer here, gets it over the kept
connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import structlog

from shared.errors import BadInputError, RollcallError, UntrustedError
from shared.listener import both_families
from shared.ratelimit import RateLimit

log = structlog.get_logger()

MESSAGE = b"RC1m"
ACK = b"RC1a"
MAX_DATAGRAM = 1200
"""Bytes that pass every link unfragmented: IPv6 promises 1,280, headers taken off."""
MAX_BUSY = 256
"""Messages that are being received at one time; more are dropped, and sent again by whoever sent them."""

Address = tuple[str, int]
"""An IPv6 address of the link carries its scope: `fe80::1%en0`."""
Target = tuple[str, int] | tuple[str, int, int, int]


class Datagrams(asyncio.DatagramProtocol):
    """`on_message` verifies and keeps a message and returns the ack to send back; `on_ack` takes a peer's.
    Both raise UntrustedError or BadInputError for what they do not accept; an address that sends too much of
    that is not listened to for a while."""

    def __init__(
        self,
        on_message: Callable[[bytes], Awaitable[bytes]],
        on_ack: Callable[[bytes], Awaitable[None]],
        patience: RateLimit,
        dropped: Counter[str],
    ) -> None:
        self._on = {MESSAGE: on_message, ACK: on_ack}
        self._patience = patience
        self._transport: asyncio.DatagramTransport | None = None
        self._busy: dict[tuple[bytes, Address], asyncio.Task[None]] = {}
        """By what came and from where: the same again meanwhile is answered by the same answer."""
        self._closed = asyncio.Event()
        self._six = False
        self._dropped = dropped

    async def open(self, host: str, port: int) -> None:
        """Listen beside the door for peers, on the same number. Raises RollcallError."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                both_families(host), port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
            )
            await loop.create_datagram_endpoint(lambda: self, sock=_bound(found[0][0], found[0][4]))
        except OSError as error:
            raise RollcallError(
                f"cannot listen for datagrams on {host}:{port}: {error.strerror}",
                remedy="choose another port in the configuration, or stop what uses it",
            ) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._six = transport.get_extra_info("socket").family == socket.AF_INET6

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def send(self, kind: bytes, raw: bytes, addresses: Iterable[Address]) -> None:
        """To each of them once. What cannot be sent is lost, as any datagram may be."""
        if self._transport is None or self._transport.is_closing():
            return
        for address in addresses:
            if (target := self._target(address)) is not None:
                self._transport.sendto(kind + raw, target)

    def _target(self, address: Address) -> Target | None:
        """None for what is not an address, which would have to be looked up, or is of the other family."""
        host, _, scope = address[0].partition("%")
        try:
            found = ipaddress.ip_address(host)
            number = _index(scope) if scope else 0
        except (ValueError, OSError):
            return None
        if found.version == 6:
            return (host, address[1], 0, number) if self._six else None
        return (f"::ffff:{found}" if self._six else host, address[1])

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        kind, address = data[: len(MESSAGE)], _sender(addr)
        if kind not in self._on or len(data) > MAX_DATAGRAM + len(kind):
            self._dropped["strange-datagram"] += 1
        elif self._patience.allowed(address[0]) > 0 or len(self._busy) >= MAX_BUSY:
            self._dropped["too-many-datagrams"] += 1
        elif (same := (data, address)) not in self._busy:
            task = asyncio.get_running_loop().create_task(self._take(kind, data, address))
            self._busy[same] = task
            task.add_done_callback(lambda _: self._busy.pop(same, None))

    async def _take(self, kind: bytes, data: bytes, address: Address) -> None:
        try:
            answer = await self._on[kind](data[len(kind) :])
        except (UntrustedError, BadInputError):
            self._patience.failed(address[0])
        except (RollcallError, OSError) as error:
            log.warning("datagram not taken", reason=str(error))
        else:
            if answer is not None:
                self.send(ACK, answer, [address])

    def error_received(self, exc: Exception) -> None:
        """The kernel's word that nobody listens there: the kept connection finds out for itself."""


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    """On `::` for both families, as the door for peers. Raises OSError."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        made.setblocking(False)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _index(scope: str) -> int:
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)


def _sender(addr: tuple[Any, ...]) -> Address:
    host = str(addr[0])
    if len(addr) > 3 and addr[3] and "%" not in host:
        host = f"{host}%{addr[3]}"
    return host, int(addr[1])
