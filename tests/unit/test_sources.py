"""Queue and digest from a server or a program that the operator names: whatever is strange is unknown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.config import SourceConfig
from agent.readiness.history import History
from agent.readiness.monitor import Monitor
from agent.readiness.probes.digest import DigestProbe
from agent.readiness.probes.queue import QueueProbe
from agent.readiness.reading import Probe
from agent.readiness.sources import MAX_READING, make_source
from scripts.minifleet.ports import free_port
from shared.npm import NodeTools
from shared.readiness import Check, CheckStatus
from tests.conftest import ManualClock

LIMIT = 500


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


class Node:
    """A node whose probe reads from one source."""

    def __init__(self, client: aiohttp.ClientSession, home: Path) -> None:
        self.client = client
        tools = NodeTools(Path("/usr/bin/false"), Path("/usr/bin/false"))
        self.openclaw = OpenClaw(tools, home, home)
        self.gateway = Gateway(client, free_port())

    def queue(self, source: SourceConfig) -> QueueProbe:
        made = make_source(source, self.client)
        return QueueProbe(self.gateway, lambda: self.openclaw, 15.0, LIMIT, made)

    def digest(self, source: SourceConfig) -> DigestProbe:
        made = make_source(source, self.client)
        return DigestProbe(self.gateway, lambda: self.openclaw, 15.0, made)

    async def read(self, probe: Probe) -> Check:
        monitor = Monitor("a", [probe], ManualClock(), lambda: None, history=History(), guards=[])
        document = await monitor.refresh()
        return next(check for check in document.checks if check.id == probe.id)


@pytest.fixture
def node(client: aiohttp.ClientSession, tmp_path: Path) -> Node:
    return Node(client, tmp_path)


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """`/say?status=…&body=…`, and what no server should answer."""
    left = asyncio.Event()

    async def say(request: web.Request) -> web.Response:
        status = int(request.query.get("status", "200"))
        return web.Response(status=status, text=request.query.get("body", "{}"))

    async def late(request: web.Request) -> web.Response:
        await left.wait()
        return web.Response()

    async def huge(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not left.is_set():
            await response.write(b"1" * (1 << 16))
        return response

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPFound("/say?body={%22depth%22:1}")

    app = web.Application()
    for path, handler in (("say", say), ("late", late), ("huge", huge), ("elsewhere", elsewhere)):
        app.router.add_get(f"/{path}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        left.set()
        await runner.cleanup()


def http(url: str, timeout: float = 3.0) -> SourceConfig:
    return SourceConfig(kind="http", url=url, timeout=timeout)


def command(script: str, timeout: float = 5.0) -> SourceConfig:
    return SourceConfig(kind="command", argv=["/bin/sh", "-c", script], timeout=timeout)


@pytest.mark.parametrize(
    "body", ['{"depth": 12}', '{"counts": {"queueSize": 12}}', '{"counts": {"totalActive": 12}}']
)
async def test_a_depth_from_a_server_or_a_program(node: Node, server: str, body: str) -> None:
    for source in (http(f"{server}/say?body={body}"), command(f"echo '{body}'")):
        check = await node.read(node.queue(source))
        assert (check.status, check.observed, check.limit) == (CheckStatus.PASS, 12.0, LIMIT)


async def test_a_deep_queue_fails_until_it_is_clearly_shallower(node: Node, tmp_path: Path) -> None:
    depth = tmp_path / "depth"
    probe = node.queue(command(f"cat {depth}"))
    found = []
    for value in (500, 501, 480, 470):
        depth.write_text(json.dumps({"depth": value}))
        found.append(await node.read(probe))
    assert [check.status.value for check in found] == ["pass", "fail", "fail", "pass"]
    assert found[1].reason == "501 operations are queued or in hand; the limit is 500"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/say?status=500&body={}", "answered 500"),
        ("/say?body=<html>", "not JSON"),
        ("/say?body=", "not JSON"),
        ("/say?body={}", "no depth"),
        ("/say?body=[]", "no depth"),
        ('/say?body={"depth":"12"}', "no depth"),
        ('/say?body={"depth":true}', "no depth"),
        ('/say?body={"depth":-1}', "no depth"),
        ('/say?body={"depth":1,"depth":2}', "twice"),
        ('/say?body={"depth":NaN}', "NaN"),
        ("/say?body=" + "[" * 500, "nested deeper"),
        ("/late", "did not answer in 0.5 s"),
        ("/huge", f"more than {MAX_READING} bytes"),
        ("/elsewhere", "answered 302"),
    ],
)
async def test_a_strange_server_makes_the_queue_unknown(
    node: Node, server: str, path: str, said: str
) -> None:
    check = await node.read(
        node.queue(http(f"{server}{path}", timeout=0.5 if "late" in path else 3))
    )
    assert check.status is CheckStatus.UNKNOWN
    assert said in check.reason


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo broken >&2; exit 3", "ended with 3: broken"),
        ("echo '{\"depth\": 1}'; exit 1", "ended with 1"),
        ("true", "not JSON"),
        ("echo all is well", "not JSON"),
        ("yes", f"more than {MAX_READING} bytes"),
        ("sleep 60", "did not end in 0.5 s and was killed"),
        ("kill -9 $$", "ended with -9"),
    ],
)
async def test_a_strange_program_makes_the_queue_unknown(
    node: Node, script: str, said: str
) -> None:
    check = await node.read(node.queue(command(script, timeout=0.5 if "sleep" in script else 5)))
    assert check.status is CheckStatus.UNKNOWN
    assert said in check.reason


async def test_a_program_and_a_server_that_are_not_there(node: Node) -> None:
    missing = SourceConfig(kind="command", argv=["/nowhere/depth"])
    assert "/nowhere/depth" in (await node.read(node.queue(missing))).reason
    check = await node.read(node.queue(http(f"http://127.0.0.1:{free_port()}/q")))
    assert (check.status, "nothing listens" in check.reason) == (CheckStatus.UNKNOWN, True)


async def test_any_json_is_a_digest_whatever_its_order(node: Node, server: str) -> None:
    one = await node.read(node.digest(http(f'{server}/say?body={{"a":1,"b":[2]}}')))
    other = await node.read(node.digest(command("""echo '{ "b": [2],  "a": 1 }'""")))
    assert one.status is CheckStatus.PASS
    assert one.observed == other.observed
    changed = await node.read(node.digest(command("""echo '{"a": 1, "b": [3]}'""")))
    assert changed.observed != one.observed
    for body in ("x", '{"a": 123456789012345678901}'):
        check = await node.read(node.digest(http(f"{server}/say?body={body}")))
        assert check.status is CheckStatus.UNKNOWN


async def test_without_a_release_no_program_is_run(node: Node, tmp_path: Path) -> None:
    source = make_source(command(f"touch {tmp_path}/ran"), node.client)
    check = await node.read(QueueProbe(node.gateway, lambda: None, 15.0, LIMIT, source))
    assert (check.status, check.reason) == (CheckStatus.UNKNOWN, "no release is installed")
    assert not (tmp_path / "ran").exists()
