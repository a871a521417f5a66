"""TLS directly over a socket: what is written arrives whole, and who goes is told so."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from shared.connection import Deadline
from shared.tls import client_context, read_peer, server_context
from shared.tlstransport import HIGH_WATER, TlsTransport, shake_hands
from tests.support.trustkit import make_fleet

LARGE = 3 << 20
PATIENCE_S = 20.0

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    """The server's, and that of the node `a`."""
    files = make_fleet(tmp_path, ("a",)).layout("a").tls
    theirs = client_context(files.ca, files)
    theirs.check_hostname = False
    return server_context(files, require_client=False), theirs


class Side(asyncio.Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.said: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.more = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.more.set()

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def eof_received(self) -> None:
        self.said.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.more.clear()
                await self.more.wait()


class Ends:
    def __init__(
        self,
        side: Side,
        transport: TlsTransport,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.side, self.transport, self.reader, self.writer = side, transport, reader, writer

    async def lost(self) -> Exception | None:
        async with asyncio.timeout(PATIENCE_S):
            return await self.side.lost


@asynccontextmanager
async def both(contexts: Contexts, linger_s: float = PATIENCE_S) -> AsyncIterator[Ends]:
    ours, theirs = contexts
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here:
        wrapped = ours.wrap_socket(here, server_side=True, do_handshake_on_connect=False)
    dialling = asyncio.create_task(
        asyncio.open_connection(sock=there, ssl=theirs, server_hostname="x")
    )
    await shake_hands(wrapped, PATIENCE_S)
    reader, writer = await dialling
    side = Side()
    transport = TlsTransport(asyncio.get_running_loop(), wrapped, side, linger_s)
    try:
        yield Ends(side, transport, reader, writer)
    finally:
        writer.transport.abort()
        transport.abort()
        await asyncio.wait_for(side.lost, PATIENCE_S)


async def test_much_goes_both_ways_and_whole(contexts: Contexts) -> None:
    large = bytes(range(256)) * (LARGE // 256)
    async with both(contexts) as ends:
        peer = read_peer(ends.transport.get_extra_info("peercert"))
        assert peer is not None
        assert peer.name == "a"
        ends.transport.write(large[:5])
        ends.transport.writelines([large[5:LARGE], b"end"])
        assert ends.transport.get_write_buffer_size() > HIGH_WATER
        assert ends.side.said == ["pause"]
        assert await ends.reader.readexactly(LARGE + 3) == large + b"end"
        assert ends.side.said == ["pause", "resume"]
        assert ends.transport.get_write_buffer_size() == 0
        ends.writer.write(large)
        await ends.side.until(lambda: len(ends.side.heard) == LARGE)
        assert ends.side.heard == large


async def test_what_is_there_already_is_heard_when_reading_goes_on(contexts: Contexts) -> None:
    async with both(contexts) as ends:
        ends.transport.pause_reading()
        assert not ends.transport.is_reading()
        ends.writer.write(b"x" * 100_000)
        await asyncio.sleep(0.05)
        assert not ends.side.heard
        ends.transport.resume_reading()
        await ends.side.until(lambda: len(ends.side.heard) == 100_000)


async def test_what_was_written_arrives_before_the_end(contexts: Contexts) -> None:
    """Also where the other side has sent what nobody reads any more."""
    async with both(contexts) as ends:
        ends.writer.write(bytes(HIGH_WATER))
        ends.transport.write(bytes(LARGE))
        ends.transport.close()
        assert ends.transport.is_closing()
        ends.transport.write(b"too late")
        assert await ends.reader.read(-1) == bytes(LARGE)
        ends.writer.close()
        assert await ends.lost() is None


async def test_who_does_not_say_goodbye_is_not_waited_for_long(contexts: Contexts) -> None:
    async with both(contexts, linger_s=0.05) as ends:
        ends.writer.transport.pause_reading()  # type: ignore[attr-defined]
        ends.transport.write(bytes(LARGE))
        ends.transport.close()
        assert await ends.lost() is None


async def test_an_end_is_told(contexts: Contexts) -> None:
    async with both(contexts) as ends:
        ends.writer.close()
        assert await ends.lost() is None
        assert ends.side.said == ["eof"]


async def test_what_is_no_tls_ends_the_connection_with_its_error(contexts: Contexts) -> None:
    async with both(contexts) as ends:
        raw = socket.socket(fileno=socket.dup(ends.writer.get_extra_info("socket").fileno()))
        with raw:
            raw.send(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(await ends.lost(), ssl.SSLError)


async def test_a_handshake_that_does_not_come_is_given_up(contexts: Contexts) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        wrapped = contexts[0].wrap_socket(here, server_side=True, do_handshake_on_connect=False)
        with wrapped, pytest.raises(TimeoutError):
            await shake_hands(wrapped, 0.05)


class Timers:
    """A loop that has only a clock, which the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.made.append(asyncio.TimerHandle(when, callback, (), as_loop(self)))
        return self.made[-1]

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.made.remove(handle)

    def move_to(self, now: float) -> None:
        self.now = now
        for timer in [each for each in self.made if each.when() <= now]:
            self.made.remove(timer)
            timer._run()


def as_loop(timers: Timers) -> asyncio.AbstractEventLoop:
    return cast(asyncio.AbstractEventLoop, timers)


def test_a_deadline_that_is_started_again_counts_from_then_on_with_one_timer() -> None:
    loop, missed = Timers(), list[float]()
    deadline = Deadline(lambda: missed.append(loop.now), as_loop(loop))
    deadline.start(10)
    loop.move_to(4)
    deadline.start(10)
    deadline.stop()
    loop.move_to(6)
    deadline.start(10)
    assert len(loop.made) == 1
    loop.move_to(10)
    assert missed == []
    loop.move_to(16)
    assert missed == [16]
    deadline.start(10)
    loop.move_to(20)
    deadline.stop()
    loop.move_to(26)
    assert (missed, loop.made) == ([16], [])
    deadline.start(10)
    deadline.close()
    assert loop.made == []
