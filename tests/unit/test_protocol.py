"""Old and new agents and coordinators: they understand each other, or say clearly that they do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agent.coordinator import Coordinator
from agent.dialler import Dialler
from agent.peer_api import PeerApi
from agent.peers.directory import Found, Hint
from agent.store import Store
from agent.sync import Sync
from agent.trust import load_trust
from shared.canonical import canonical_json, sha256_hex
from shared.clock import SystemClock
from shared.envelope import MESSAGE, seal
from shared.errors import BadInputError
from shared.http import RefusedError, call, session
from shared.listener import Server
from shared.messages import Payload, Red, RedKind, Verdict, open_message
from shared.protocol import HEADER, SPOKEN, ProtocolError, ProtocolRange, check_overlap
from shared.release import AgentBuild
from shared.report import NodeReport, ReadinessSummary, SyncRequest
from shared.roster import COORDINATOR_HOST
from shared.tls import client_context, server_context, unverified_context
from tests.support.coordinatorkit import LOCK, Running, joined, start, sync
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_mesh import NoRepository as NoFiles
from tests.unit.test_mesh import Peer, no_document, with_files
from tests.unit.test_sync import NoClears, NoRepository

OLDER, MIDDLE, NEWER = (
    ProtocolRange(min=1, max=1),
    ProtocolRange(min=1, max=2),
    ProtocolRange(min=2, max=3),
)


@given(
    st.tuples(st.integers(1, 9), st.integers(0, 9)), st.tuples(st.integers(1, 9), st.integers(0, 9))
)
def test_ranges_overlap_when_they_have_a_number_in_common(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    one, two = (ProtocolRange(min=low, max=low + more) for low, more in (a, b))
    numbers = [set(range(each.min, each.max + 1)) for each in (one, two)]
    assert one.overlaps(two) == two.overlaps(one) == bool(numbers[0] & numbers[1])
    assert ProtocolRange.parse(one.header) == one


@pytest.mark.parametrize(
    "text", ["", "1", "2-1", "0-1", "1-2-3", "1 - 2", "a-b", "1-9999999", "1-2\n"]
)
def test_a_header_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="Rollcall-Protocol"):
        ProtocolRange.parse(text)


def test_the_refusal_names_both_ranges_and_the_side_to_upgrade() -> None:
    with pytest.raises(ProtocolError) as refused:
        check_overlap(NEWER, OLDER, here="this coordinator", there="the agent of a")
    assert str(refused.value) == (
        "this coordinator speaks protocols 2 to 3 and the agent of a protocol 1: none in common "
        "(upgrade the agent of a)"
    )


async def speaking(running: Running, speaks: ProtocolRange) -> None:
    """The coordinator again, as another version of it would be."""
    await running.stop()
    running.settings = replace(running.settings, speaks=speaks)
    running.task = await start(running.settings)


@asynccontextmanager
async def agent_of(running: Running, name: str, speaks: ProtocolRange) -> AsyncIterator[Sync]:
    """The syncing part of an agent that speaks this."""
    layout = await joined(running, name)
    async with AsyncExitStack() as stack:
        dialler = Dialler(layout.tls, speaks)
        stack.push_async_callback(dialler.close)
        store = await Store.open(layout.database)
        stack.push_async_callback(store.close)
        trust = await asyncio.to_thread(load_trust, layout)

        async def report() -> NodeReport:
            ready = ReadinessSummary(status=Verdict.GREEN)
            return NodeReport(node=name, agent_version="0", protocol=speaks, readiness=ready)

        made = Sync(
            Coordinator(dialler, running.url),
            trust,
            store,
            SystemClock(),
            report,
            lambda target: None,
            NoRepository(),
            clears=NoClears(),
        )
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def settled(made: Sync) -> None:
    async with asyncio.timeout(60):
        while not made.connected and not made.refused:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("coordinator", "agent"), [(OLDER, MIDDLE), (MIDDLE, OLDER), (MIDDLE, NEWER), (NEWER, MIDDLE)]
)
async def test_neighbours_understand_each_other(
    running: Running, coordinator: ProtocolRange, agent: ProtocolRange
) -> None:
    async with agent_of(running, "a", agent) as made:
        await settled(made)
        await speaking(running, coordinator)
        made.connected = False
        async with asyncio.timeout(60):
            while not made.connected:
                await asyncio.sleep(0.02)
        assert made.alerts == []


async def test_an_old_coordinator_refuses_a_new_agent_until_it_is_upgraded(
    running: Running,
) -> None:
    async with agent_of(running, "a", NEWER) as made:
        await settled(made)
        assert made.alerts == [
            "sync: this coordinator speaks protocol 1 and the agent of a protocols 2 to 3: none in "
            "common (upgrade this coordinator)"
        ]
        await speaking(running, MIDDLE)
        async with asyncio.timeout(15):
            while made.alerts:
                await asyncio.sleep(0.05)
        assert made.connected


async def test_a_new_coordinator_refuses_an_old_agent(running: Running) -> None:
    async with agent_of(running, "a", OLDER) as made:
        await settled(made)
        assert made.connected
        await speaking(running, NEWER)
        async with asyncio.timeout(15):
            while not made.alerts:
                await asyncio.sleep(0.05)
        assert "upgrade the agent of a" in made.alerts[0]
        assert not made.connected


async def test_the_refusal_is_a_problem_document_for_everybody_who_says_a_range(
    running: Running,
) -> None:
    """Join and renewal too: before anything of the request is looked at."""
    for method, path in (("POST", "/v1/join"), ("POST", "/v1/renew"), ("GET", "/v1/cluster/info")):
        async with (
            session(context=unverified_context(), speaks=NEWER) as client,
            client.request(method, running.url + path, server_hostname=COORDINATOR_HOST) as answer,
        ):
            body = await answer.json(content_type="application/problem+json")
            assert (answer.status, body["code"], answer.headers[HEADER]) == (409, "protocol", "1-1")
            assert body["remedy"] == "upgrade this coordinator"


async def test_an_agent_that_says_nothing_is_one_from_before_ranges(running: Running) -> None:
    node = await joined(running, "a")
    report = {"node": "a", "agent_version": "0.1.0", "readiness": {"status": "green"}}
    body = canonical_json({"protocol": 1, "report": report})

    context = await asyncio.to_thread(client_context, node.tls.ca, node.tls)

    async def silent() -> int:
        async with (
            session(context=context, speaks=None) as client,
            client.post(
                f"{running.url}/v1/sync", data=body, server_hostname=COORDINATOR_HOST
            ) as answer,
        ):
            return answer.status

    assert await silent() == 200
    await speaking(running, NEWER)
    assert await silent() == 409


async def test_people_and_load_balancers_need_not_say_anything(running: Running) -> None:
    await speaking(running, NEWER)
    assert (await running.reply("GET", "/livez")).status == 409, "this client is one of ours"
    async with (
        session(context=unverified_context(), speaks=None) as client,
        client.get(f"{running.url}/livez", server_hostname=COORDINATOR_HOST) as answer,
    ):
        assert answer.status == 200


async def test_a_server_from_before_ranges_is_noticed_by_the_caller() -> None:
    async def fine(_: web.Request) -> web.Response:
        return web.json_response({})

    old = web.Application()
    old.router.add_get("/fine", fine)
    server = Server(old, "127.0.0.1", 0)
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/fine"
        for speaks in (MIDDLE, None):
            async with session(speaks=speaks) as client:
                assert await call(client, "GET", url) == b"{}"
        async with session(speaks=NEWER) as client:
            with pytest.raises(ProtocolError, match="upgrade the other side at"):
                await call(client, "GET", url)
    finally:
        await server.stop()


async def test_cluster_info_shows_who_speaks_what(running: Running) -> None:
    for name, speaks in (("a", OLDER), ("b", MIDDLE), ("c", None)):
        node = await joined(running, name)
        ready = ReadinessSummary(status=Verdict.GREEN)
        if speaks is not None:
            said = NodeReport(node=name, agent_version="0.2", protocol=speaks, readiness=ready)
            await sync(node, said)
    info = await running.get("/v1/cluster/info")
    assert info["protocol"] == {"min": SPOKEN.min, "max": SPOKEN.max}
    assert {each["name"]: each["overlaps"] for each in info["nodes"]} == {
        "a": True,
        "b": True,
        "c": False,
    }
    await sync(
        await joined(running, "d"),
        NodeReport(node="d", agent_version="0.9", protocol=NEWER, readiness=ready),
    )
    info = await running.get("/v1/cluster/info")
    assert not any(each["overlaps"] for each in info["nodes"] if each["name"] in ("a", "d"))


async def test_unknown_fields_of_a_newer_agent_are_no_reason_to_refuse(running: Running) -> None:
    node = await joined(running, "a")
    report = {
        "node": "a",
        "agent_version": "9.0",
        "mood": {"is": "good"},
        "readiness": {"status": "green", "colour": 3},
    }
    asked = {"report": report, "protocol": {"min": 1, "max": 9, "very": "new"}, "more": [1]}
    reply = await running.reply("POST", "/v1/sync", node=node, body=json.dumps(asked).encode())
    assert reply.status == 200
    assert SyncRequest.from_value({**asked, "report": report}).report.agent_version == "9.0"


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path / "peers", ("a", "b")))


def red(fleet: TestFleet, **changes: object) -> bytes:
    """A red of `a`, signed by it, with whatever a newer version would write into it."""
    body = Red(kind=RedKind.READINESS, reason="x")
    payload = Payload(
        fleet=fleet.document.fleet, origin="a", epoch=1, sequence=1, issued=1.0, body=body
    )
    value = {**payload.model_dump(mode="json"), **changes}
    return seal(canonical_json(value), MESSAGE, fleet.keys["a"])


def test_a_red_of_a_newer_version_counts_whatever_else_it_says(fleet: TestFleet) -> None:
    body = {"type": "red", "kind": "quantum-failed", "reason": "x", "severity": 9}
    opened = open_message(red(fleet, body=body, newest=7, colour="red"), fleet.roster())
    assert isinstance(opened.payload.body, Red)
    assert opened.payload.body.kind == "quantum-failed"


def test_a_message_is_read_when_its_range_overlaps(fleet: TestFleet) -> None:
    roster = fleet.roster()
    assert open_message(red(fleet, protocol=1, newest=3), roster, OLDER)
    assert open_message(red(fleet, protocol=2, newest=3), roster, MIDDLE)
    assert open_message(red(fleet), roster, OLDER)
    for raw, speaks in (
        (red(fleet, protocol=2, newest=3), OLDER),
        (red(fleet, protocol=1, newest=1), NEWER),
        (red(fleet, protocol=2, newest=2, body={"type": "gold"}), OLDER),
    ):
        with pytest.raises(ProtocolError, match="none in common"):
            open_message(raw, roster, speaks)
    with pytest.raises(BadInputError, match="before it begins"):
        open_message(red(fleet, protocol=3, newest=2), roster)


def test_what_was_written_before_ranges_is_of_its_one_protocol(fleet: TestFleet) -> None:
    body = Red(kind=RedKind.READINESS, reason="x")
    value = Payload(
        fleet=fleet.document.fleet, origin="a", epoch=1, sequence=1, issued=1.0, body=body
    ).model_dump(mode="json", exclude={"newest"})
    raw = seal(canonical_json(value), MESSAGE, fleet.keys["a"])
    assert open_message(raw, fleet.roster())
    with pytest.raises(ProtocolError):
        open_message(raw, fleet.roster(), NEWER)


def test_a_signature_is_checked_before_the_range(fleet: TestFleet) -> None:
    """Who cannot sign learns nothing of what this side speaks."""
    sent = json.loads(red(fleet, protocol=9, newest=9))
    sent["signatures"][0]["sig"] = "A" * 88
    with pytest.raises(Exception, match="signature") as refused:
        open_message(json.dumps(sent).encode(), fleet.roster())
    assert not isinstance(refused.value, ProtocolError)


async def test_peers_that_do_not_overlap_say_so_and_lose_no_red(fleet: TestFleet) -> None:
    """Over real mutual TLS: the refusal is not final, so the red arrives once the peer is upgraded."""
    a, b = await Peer(fleet, "a").up(), await Peer(fleet, "b").up()
    async with AsyncExitStack() as stack:
        for peer in (a, b):
            stack.push_async_callback(peer.down)
        newer = await door_of(b, NEWER, 0)
        a.directory.learn("b", Hint("127.0.0.1", newer.port, Found.STATIC))
        said = "the agent of b speaks protocols 2 to 3 and the agent of a protocol 1"
        with pytest.raises(RefusedError, match=said) as refused:
            await a.transport.ask("b", "GET", "/v1/peer/events")
        assert refused.value.refused_code == "protocol"
        sent = await a.mesh.broadcast(Red(kind=RedKind.AGENT_FAILED, reason="x"))
        a.run()
        await asyncio.sleep(0.5)
        assert b.heard == []
        await newer.stop()
        upgraded = await door_of(b, MIDDLE, newer.port)
        stack.push_async_callback(upgraded.stop)
        async with asyncio.timeout(60):
            while not b.heard:
                await asyncio.sleep(0.05)
        assert [message.key for message in b.heard] == [sent.key]


async def door_of(peer: Peer, speaks: ProtocolRange, port: int) -> Server:
    api = PeerApi(peer.trust, peer.mesh, peer.gossip, NoFiles(), no_document, speaks)
    context = server_context(peer.layout.tls, require_client=True)
    server = Server(api.application(peer.links.accept), "127.0.0.1", port, context)
    await server.start()
    return server


def agent_speaking(speaks: ProtocolRange | None) -> AgentBuild:
    return AgentBuild(
        version="0.2.0",
        file="rollcall-0.2.0-py3-none-any.whl",
        sha256=sha256_hex(LOCK),
        size=len(LOCK),
        protocol=speaks,
    )


@pytest.mark.parametrize("speaks", [None, OLDER, MIDDLE])
async def test_a_rollout_of_an_agent_that_everybody_understands_may_begin(
    running: Running, speaks: ProtocolRange | None
) -> None:
    await sync(await joined(running, "a"))
    release = await running.publish(agent=agent_speaking(speaks))
    assert (await running.post("/v1/targets", {"release": release}))["state"] == "running"


async def test_a_rollout_that_would_leave_somebody_alone_does_not_begin(running: Running) -> None:
    """Seed 004: look at every range before, and abort when they do not overlap."""
    node = await joined(running, "a")
    await joined(running, "silent")
    ready = ReadinessSummary(status=Verdict.GREEN)
    await sync(node, NodeReport(node="a", agent_version="0.1.0", protocol=OLDER, readiness=ready))
    release = await running.publish(agent=agent_speaking(NEWER))
    with pytest.raises(
        RefusedError, match=r"agent 0\.2\.0 of the release speaks protocols 2 to 3"
    ) as at:
        await running.post("/v1/targets", {"release": release, "dry_run": True})
    assert (at.value.status, at.value.refused_code) == (409, "protocol")
    assert "upgrade this coordinator" in str(at.value)
    await speaking(running, MIDDLE)
    with pytest.raises(RefusedError, match="the agent of a protocol 1") as at:
        await running.post("/v1/targets", {"release": release})
    await sync(node, NodeReport(node="a", agent_version="0.1.5", protocol=MIDDLE, readiness=ready))
    assert (await running.post("/v1/targets", {"release": release}))["state"] == "running"
