"""Requests and answers that are too large, too slow, coded or lead elsewhere (fault 28)."""

from __future__ import annotations

import asyncio
import gc
import json
import queue
import ssl
import threading
import warnings
from collections.abc import AsyncIterator

import pytest
import trustme
from aiohttp import web

from shared.errors import BadInputError, UnavailableError
from shared.http import application, call, read_body, session
from tests.support.sockets import Field, Peak, gzip_bomb, serving

FLAT = 32 << 20
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNK = b"10000\r\n" + bytes(1 << 16) + b"\r\n"


@pytest.fixture
async def field() -> AsyncIterator[Field]:
    """`/` answers with the size of the body that it was sent."""
    app = application()

    async def size(request: web.Request) -> web.Response:
        return web.json_response(len(await read_body(request)))

    async def impatient(request: web.Request) -> web.Response:
        return web.json_response(len(await read_body(request, deadline_s=0.4)))

    app.router.add_post("/", size)
    app.router.add_post("/impatient", impatient)
    async with serving(app) as started:
        yield started


async def test_a_body_announced_as_huge_is_refused_at_once(field: Field) -> None:
    client = await field.connect()
    client.send(POST + b"Content-Length: 1073741824\r\n\r\nab")
    head = await client.head()
    assert "413" in head
    assert "connection: close" in head
    assert await client.ended()


async def test_an_endless_body_is_refused_in_flat_memory(field: Field) -> None:
    client = await field.connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")

    async def pour() -> None:
        while True:
            client.writer.write(CHUNK)
            await client.writer.drain()

    async with Peak() as peak:
        pouring = asyncio.create_task(pour())
        assert "413" in await client.head()
        assert await client.ended(), "what still comes is not read for long"
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    assert peak.growth < FLAT


async def test_a_body_that_trickles_is_ended(field: Field) -> None:
    client = await field.connect()
    client.send(b"POST /impatient HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")

    async def trickle() -> None:
        while True:
            client.send(b"a")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    assert "408" in await client.head()
    assert await client.ended()
    trickling.cancel()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "nonsense"])
async def test_a_coded_body_is_refused(field: Field, coding: str) -> None:
    client = await field.connect()
    body = gzip_bomb()
    async with Peak() as peak:
        client.send(
            POST + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        client.send(body)
        assert "415" in await client.head()
        assert await client.ended()
    assert peak.growth < FLAT


async def test_identity_is_no_coding(field: Field) -> None:
    async with session() as client:
        headers = {"Content-Encoding": "identity"}
        assert await call(client, "POST", field.url, data=b"abc", headers=headers) == b"3"


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 100 + b"\r\n",
    ],
    ids=["no HTTP", "long line", "long field", "many fields"],
)
async def test_a_malformed_or_oversized_head_is_refused(field: Field, head: bytes) -> None:
    client = await field.connect()
    client.send(head)
    answer = await client.head()
    assert " 400 " in answer
    assert "aiohttp" not in answer
    assert "problem+json" in answer
    assert await client.ended()


async def test_every_answer_is_guarded(field: Field) -> None:
    async with session() as client:
        for method, path in (("POST", "/"), ("GET", "/"), ("GET", "/nowhere")):
            async with client.request(method, field.url + path) as answer:
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["Server"] == "rollcall"


class Malicious:
    """A server that answers what nobody asked for, and remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/bomb", self.bomb)
        app.router.add_get("/elsewhere/{status}", self.elsewhere)
        app.router.add_get("/cookie", self.cookie)
        app.router.add_get("/endless", self.endless)
        return app

    async def bomb(self, _: web.Request) -> web.Response:
        return web.Response(body=gzip_bomb(), headers={"Content-Encoding": "gzip"})

    async def elsewhere(self, request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        return web.Response(status=status, headers={"Location": "/cookie"})

    async def cookie(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.Response(text="{}", headers={"Set-Cookie": "a=b"})

    async def endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1 << 16))


async def test_a_gzip_bomb_as_an_answer_is_refused() -> None:
    async with serving(Malicious().app()) as field, session() as client:
        async with Peak() as peak:
            with pytest.raises(BadInputError, match="content coding 'gzip'"):
                await call(client, "GET", f"{field.url}/bomb", max_answer=4 << 30)
            async with client.get(f"{field.url}/bomb") as answer:
                assert await answer.content.readexactly(2) == b"\x1f\x8b", "not inflated"
        assert peak.growth < FLAT


async def test_an_endless_answer_is_refused_in_flat_memory() -> None:
    async with serving(Malicious().app()) as field, session() as client:
        async with Peak() as peak:
            with pytest.raises(BadInputError, match="more than"):
                await call(client, "GET", f"{field.url}/endless")
        assert peak.growth < FLAT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    malicious = Malicious()
    async with serving(malicious.app()) as field, session() as client:
        with pytest.raises(BadInputError, match=rf"redirect \({status}\)"):
            await call(client, "GET", f"{field.url}/elsewhere/{status}")
    assert not malicious.seen


async def test_cookies_are_not_kept_and_no_coding_is_asked_for() -> None:
    malicious = Malicious()
    async with serving(malicious.app()) as field, session() as client:
        url = f"http://localhost:{field.server.port}/cookie"
        assert json.loads(await call(client, "GET", url)) == {}
        await call(client, "GET", url)
    assert all("Cookie" not in request.headers for request in malicious.seen)
    assert malicious.seen[1].headers["Accept-Encoding"] == "identity"


async def test_nobody_there_is_unavailable(field: Field) -> None:
    await field.server.stop()
    async with session() as client:
        with pytest.raises(UnavailableError, match="no answer from"):
            await call(client, "POST", field.url)


def test_a_session_leaves_no_tls_connection_behind() -> None:
    """Where the server closes first: TLS then waits for a goodbye that an ended loop never hears. An unclosed
    connection is a warning, and a warning fails the test."""
    authority = trustme.CA()
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(for_server)
    for_client = ssl.create_default_context()
    authority.configure_trust(for_client)
    ports: queue.Queue[int] = queue.Queue()
    done = threading.Event()

    async def last_word(_: web.Request) -> web.Response:
        answer = web.Response(text="x")
        answer.force_close()
        return answer

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/", last_word)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=for_server).start()
        ports.put(runner.addresses[0][1])
        await asyncio.to_thread(done.wait, 60)
        await runner.cleanup()

    async def ask(port: int) -> None:
        async with (
            session(context=for_client, speaks=None) as client,
            client.get(f"https://127.0.0.1:{port}/") as answer,
        ):
            await answer.read()

    serving = threading.Thread(target=lambda: asyncio.run(serve()))
    serving.start()
    port = ports.get(timeout=30)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(20):
                asyncio.run(ask(port))
            gc.collect()
    finally:
        done.set()
        serving.join()
    assert not [str(each.message) for each in seen if "unclosed" in str(each.message)]
