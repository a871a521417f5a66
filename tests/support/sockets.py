"""Clients that do not behave: raw connections for the tests of the HTTP layer, and a gauge for memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
from aiohttp import web

from shared.connection import Limits
from shared.listener import Server


class Raw:
    """One TCP or TLS connection that sends what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.writer.write(data)

    async def head(self) -> str:
        """The next answer's status line and headers, in lower case."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def ended(self, seconds: float = 30.0) -> bool:
        """Whether the other side ends the connection within the time; what it sends is dropped."""
        try:
            async with asyncio.timeout(seconds):
                while await self.reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Field:
    """A server, and raw connections to it that are closed with it."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server, self._stack = server, stack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def connect(self, context: ssl.SSLContext | None = None) -> Raw:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context))
        self._stack.push_async_callback(raw.close)
        return raw


@asynccontextmanager
async def serving(
    app: web.Application, context: ssl.SSLContext | None = None, limits: Limits | None = None
) -> AsyncIterator[Field]:
    server = Server(app, "127.0.0.1", 0, context, limits)
    await server.start()
    try:
        async with AsyncExitStack() as stack:
            yield Field(server, stack)
    finally:
        await server.stop()


class Peak:
    """Growth of this process's resident memory while the block runs, in bytes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.growth = 0

    async def __aenter__(self) -> Peak:
        self._start = self._process.memory_info().rss
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._look()

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.02)

    def _look(self) -> None:
        self.growth = max(self.growth, self._process.memory_info().rss - self._start)


def gzip_bomb(size: int = 1 << 30) -> bytes:
    """A gzip stream of `size` zero bytes. Each full flush starts anew, so one block can be repeated."""
    block = 16 << 20
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(block)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + packed * (size // block)
