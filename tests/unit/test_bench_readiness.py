"""The side of the readiness benchmark that counts how long an answer takes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from scripts.benchmarks.bare import serve
from scripts.benchmarks.readiness import IN_A_TURN, TURNS, Asker, content_length, measure
from shared.errors import RollcallError
from shared.http import application
from shared.listener import Server


async def plain(_: web.Request) -> web.Response:
    return web.Response(body=b"whole")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = application()
    app.router.add_get("/plain", plain)
    server = Server(app, "127.0.0.1", 0)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


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
