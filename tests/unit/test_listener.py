"""What strangers can do to a listener: hold connections, drip heads, stall handshakes (fault 29)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import socket
import ssl
import struct
from itertools import cycle
from pathlib import Path

import pytest
from aiohttp import web

from shared.connection import Limits
from shared.errors import RollcallError
from shared.http import application, call, session
from shared.listener import Server
from shared.roster import tls_name
from shared.tls import client_context, server_context
from tests.support.sockets import Field, Raw, serving
from tests.support.trustkit import make_fleet

SLOW_CLIENTS = 500
LARGE = 32 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_A_HEAD = b"GET / HTTP/1.1\r\nX-Slow: "
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and a client's, which knows the fleet's authority."""
    files = make_fleet(tmp_path, ("a",)).layout("a").tls
    return server_context(files, require_client=False), client_context(files.ca)


def app(hold: asyncio.Event | None = None) -> web.Application:
    """`/` answers with the caller's port, which names the connection; `/held` when `hold` is set;
    `/large` with more than the kernel's buffers take, and `/whole` with as much in one piece."""
    made = application()

    async def port(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.json_response(request.transport.get_extra_info("peername")[1])

    async def held(_: web.Request) -> web.Response:
        assert hold is not None
        await hold.wait()
        return web.json_response({})

    async def large(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(LARGE)})
        await answer.prepare(request)
        for _ in range(LARGE >> 20):
            await answer.write(bytes(1 << 20))
        return answer

    async def whole(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    made.router.add_get("/", port)
    made.router.add_get("/held", held)
    made.router.add_get("/large", large)
    made.router.add_get("/whole", whole)
    return made


async def drip(clients: list[Raw], beginning: bytes) -> None:
    """One byte a client every 0.2 s."""
    for byte in cycle([beginning[i : i + 1] for i in range(len(beginning))]):
        for client in clients:
            client.send(byte)
        await asyncio.sleep(0.2)


async def in_time(field: Field, seconds: float, tls: ssl.SSLContext | None) -> list[int]:
    """Requests over one kept connection, each answered in under 1 s; the ports that they came from."""
    loop = asyncio.get_running_loop()
    url = f"{'https' if tls else 'http'}://127.0.0.1:{field.server.port}/"
    name = tls_name("a") if tls else None
    ports, ends = [], loop.time() + seconds
    async with session(context=tls, per_host=1) as client:
        while loop.time() < ends:
            answer = await call(client, "GET", url, timeout_s=1, server_hostname=name)
            ports.append(json.loads(answer))
            await asyncio.sleep(0.1)
    return ports


@pytest.mark.parametrize("tls", [False, True], ids=["head", "handshake"])
async def test_slow_clients_do_not_hold_up_healthy_ones(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tls: bool
) -> None:
    """Fault 29, with the bytes of a head and with those of a TLS handshake."""
    ours, theirs = contexts if tls else (None, None)
    limits = Limits(handshake_s=1.5, head_s=1.5)
    async with serving(app(), ours, limits) as field:
        slow = [await field.connect() for _ in range(SLOW_CLIENTS)]
        dripping = asyncio.create_task(drip(slow, HALF_A_HELLO if tls else HALF_A_HEAD))
        ports = await in_time(field, 3, theirs)
        assert len(ports) >= 5
        assert len(set(ports)) == 1, "the healthy connection outlived the deadline"
        assert all(await asyncio.gather(*(client.ended() for client in slow)))
        dripping.cancel()


async def test_a_handshake_that_never_starts_is_ended(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(app(), contexts[0], Limits(handshake_s=0.3)) as field:
        silent = await field.connect()
        assert not await silent.ended(0.1)
        assert await silent.ended()


async def test_who_is_gone_before_the_handshake_leaves_no_socket_open(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A socket that nobody closes is a warning, and fails the test."""
    at_once = struct.pack("ii", 1, 0)
    async with serving(app(), contexts[0]) as field:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", field.server.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        gc.collect()


async def test_a_head_that_never_comes_is_ended_behind_tls_too(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = contexts
    theirs.check_hostname = False
    async with serving(app(), ours, Limits(head_s=0.3)) as field:
        assert await (await field.connect(theirs)).ended()


async def test_a_later_head_has_the_same_deadline_and_idle_time_has_not() -> None:
    async with serving(app(), limits=Limits(head_s=0.4)) as field:
        idle, halting = await field.connect(), await field.connect()
        for client in (idle, halting):
            client.send(GET)
            assert "200 ok" in await client.head()
        halting.send(HALF_A_HEAD)
        assert await halting.ended()
        assert not await idle.ended(0.6)
        idle.send(GET)
        assert "200 ok" in await idle.head()


async def test_a_slow_handler_and_a_slow_body_are_not_slow_heads() -> None:
    hold = asyncio.Event()
    async with serving(app(hold), limits=Limits(head_s=0.2)) as field:
        client = await field.connect()
        client.send(b"GET /held HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await asyncio.sleep(0.5)
        client.send(b"b")
        hold.set()
        assert "200 ok" in await client.head()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_takes_nothing_of_its_answer_is_ended(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tls: bool
) -> None:
    """Without this, such connections would be busy for ever and fill all places."""
    ours, theirs = contexts
    theirs.check_hostname = False
    limits = Limits(stall_s=0.4)
    async with serving(app(), ours if tls else None, limits) as field:
        client = await field.connect(theirs if tls else None)
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.8)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reader.readexactly(LARGE)


@pytest.mark.parametrize("path", ["/large", "/whole"])
async def test_a_client_that_takes_its_answer_slowly_gets_it(path: str) -> None:
    async with serving(app(), limits=Limits(stall_s=0.4)) as field:
        client = await field.connect()
        client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert "200 ok" in await client.head()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await client.reader.readexactly(LARGE // 8)


@pytest.mark.parametrize("tls", [False, True], ids=["head", "handshake"])
async def test_the_oldest_silent_connection_makes_room(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tls: bool
) -> None:
    ours, theirs = contexts if tls else (None, None)
    async with serving(app(), ours, Limits(connections=20)) as field:
        silent = [await field.connect() for _ in range(20)]
        assert await in_time(field, 0.5, theirs)
        assert await silent[0].ended()
        assert not any(await asyncio.gather(*(each.ended(0.1) for each in silent[1:])))


async def test_out_of_descriptors_is_a_full_house() -> None:
    """The limit is lowered so that the client's end of one more connection takes the last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(app()) as field:
        silent = [await field.connect(), await field.connect()]
        await asyncio.sleep(0.05)
        last = os.dup(0)
        os.close(last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
        try:
            one_more = await field.connect()
            one_more.send(GET)
            assert "200 ok" in await one_more.head()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await silent[0].ended()
        assert not await silent[1].ended(0.1)


async def test_silent_ones_go_before_idle_ones() -> None:
    async with serving(app(), limits=Limits(connections=2)) as field:
        idle = await field.connect()
        idle.send(GET)
        assert "200 ok" in await idle.head()
        silent = await field.connect()
        await asyncio.sleep(0.05)
        await field.connect()
        assert await silent.ended()
        assert not await idle.ended(0.1)


async def test_then_the_one_that_was_idle_for_longest() -> None:
    async with serving(app(), limits=Limits(connections=2)) as field:
        first, second = await field.connect(), await field.connect()
        for client in (first, second, first):
            client.send(GET)
            assert "200 ok" in await client.head()
            await client.reader.readexactly(5)
        third = await field.connect()
        third.send(GET)
        assert "200 ok" in await third.head()
        assert await second.ended()
        assert not await first.ended(0.1)


async def test_busy_connections_are_left_alone() -> None:
    hold = asyncio.Event()
    async with serving(app(hold), limits=Limits(connections=2)) as field:
        busy = [await field.connect(), await field.connect()]
        for client in busy:
            client.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        assert await (await field.connect()).ended()
        hold.set()
        for client in busy:
            assert "200 ok" in await client.head()


async def test_places_of_those_who_left_are_free_again() -> None:
    """Also of one that left before its answer was ready."""
    hold = asyncio.Event()
    async with serving(app(hold), limits=Limits(connections=2)) as field:
        for _ in range(5):
            gone = await field.connect()
            gone.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            await gone.close()
            await asyncio.sleep(0.05)
        hold.set()
        await asyncio.sleep(0.05)
        kept = [await field.connect(), await field.connect()]
        for client in kept:
            client.send(GET)
            assert "200 ok" in await client.head()


async def test_stopping_does_not_wait_for_handshakes(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(app(), contexts[0]) as field:
        silent = await field.connect()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            await field.server.stop()
        assert await silent.ended()


async def test_a_taken_port_is_named() -> None:
    async with serving(app()) as field:
        second = Server(app(), "127.0.0.1", field.server.port)
        with pytest.raises(RollcallError, match=f"127.0.0.1:{field.server.port}: .*in use"):
            await second.start()


async def test_a_host_with_several_addresses() -> None:
    server = Server(app(), "localhost", 0)
    await server.start()
    async with session() as client:
        assert await call(client, "GET", f"http://localhost:{server.port}/")
    await server.stop()
