"""Asking for what may be known already, and the side of the benchmark that counts how long an answer takes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from scripts.benchmarks.bare import serve
from scripts.benchmarks.readiness import IN_A_TURN, TURNS, Asker, content_length, measure
from shared.errors import BadInputError, RollcallError, UnavailableError
from shared.http import RefusedError, application, get_changed, session
from shared.listener import Server

ETAG = 'W/"1"'


async def document(request: web.Request) -> web.Response:
    if request.headers.get("If-None-Match") == ETAG:
        return web.Response(status=304, headers={"ETag": ETAG})
    return web.Response(body=b"whole", headers={"ETag": ETAG})


async def plain(_: web.Request) -> web.Response:
    return web.Response(body=b"whole")


async def always_304(_: web.Request) -> web.Response:
    return web.Response(status=304)


async def elsewhere(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = application()
    for handler in (document, plain, always_304, elsewhere):
        app.router.add_get(f"/{handler.__name__}", handler)
    server = Server(app, "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_what_is_known_already_is_not_sent_again(url: str) -> None:
    async with session() as client:
        first = await get_changed(client, f"{url}/document", None)
        assert (first.body, first.etag) == (b"whole", ETAG)
        again = await get_changed(client, f"{url}/document", first.etag)
        assert (again.body, again.etag) == (None, ETAG)
        other = await get_changed(client, f"{url}/document", 'W/"0"')
        assert other.body == b"whole"


async def test_a_side_without_etags_sends_it_each_time(url: str) -> None:
    async with session() as client:
        found = await get_changed(client, f"{url}/plain", None)
        assert (found.body, found.etag) == (b"whole", None)


async def test_304_to_who_knows_nothing_and_other_detours_are_refused(url: str) -> None:
    async with session() as client:
        for path, etag in (("always_304", None), ("elsewhere", ETAG)):
            with pytest.raises(BadInputError, match="redirect"):
                await get_changed(client, f"{url}/{path}", etag)
        with pytest.raises(RefusedError):
            await get_changed(client, f"{url}/nothing", ETAG)
    with pytest.raises(UnavailableError):
        async with session() as client:
            await get_changed(client, "http://127.0.0.1:1/", None)


async def test_the_benchmark_measures_both_sides_alike(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = asyncio.create_task(serve(70_000))
    port = 0
    while not port:
        await asyncio.sleep(0.01)
        port = int(capsys.readouterr().out or 0)
    ours = await asyncio.to_thread(Asker, int(url.rpartition(":")[2]), "/plain")
    bare = await asyncio.to_thread(Asker, port, "/")
    seconds, body = await asyncio.to_thread(bare.ask)
    assert (len(body), seconds > 0) == (70_000, True)
    mine, floor = await asyncio.to_thread(measure, ours, bare)
    assert mine > 0
    assert floor > 0
    assert TURNS * IN_A_TURN >= 1000, "enough for a median"
    gone = await asyncio.to_thread(Asker, port, "/nothing")
    with pytest.raises(RollcallError, match="404"):
        await asyncio.to_thread(gone.ask)
    for asker in (ours, bare, gone):
        asker.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def test_an_answer_must_say_how_long_it_is() -> None:
    assert content_length(b"HTTP/1.1 200 OK\r\ncontent-Length: 12\r\nx: y") == 12
    for head in (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999"):
        with pytest.raises(RollcallError):
            content_length(head)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asker = Asker(listener.getsockname()[1], "/")
        there, _ = listener.accept()
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(RollcallError, match="ended before"):
            asker.ask()
        there.close()
        asker.close()
