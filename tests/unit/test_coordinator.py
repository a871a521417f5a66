"""The coordinator's API, over real TLS, with its real database."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.coordinator import Coordinator
from agent.join import join
from agent.layout import Layout
from agent.releases import Releases
from agent.trust import load_trust
from coordinator.home import HomePaths
from coordinator.server import Settings
from scripts.minifleet.workspace import free_port
from shared.canonical import sha256_hex
from shared.durable import write_durable
from shared.errors import ConfigError, ConflictError, UntrustedError
from shared.http import RefusedError, session
from shared.keys import SigningKey
from shared.messages import Clear, Payload, Red, RedKind, Verdict, sign_message
from shared.report import NodeReport, ReadinessSummary
from shared.roster import COORDINATOR_HOST, Role
from shared.tls import client_context, unverified_context
from tests.support.coordinatorkit import LOCK, Running, joined, start, sync


async def test_a_node_joins_once_with_keys_that_it_made_itself(running: Running) -> None:
    token = await running.token()
    layout = Layout(running.root / "a")
    await join(layout, token, "a", Role.CANARY)
    assert layout.message_key.stat().st_mode & 0o777 == 0o600
    trust = await asyncio.to_thread(load_trust, layout)
    assert trust.roster.find("a").role is Role.CANARY
    with pytest.raises(RefusedError, match="used"):
        await join(Layout(running.root / "b"), token, "b", Role.STABLE)
    with pytest.raises(ConflictError, match="joined"):
        await join(layout, await running.token(), "a", Role.STABLE)
    with pytest.raises(RefusedError, match="'a' has joined"):
        await join(Layout(running.root / "c"), await running.token(), "a", Role.STABLE)
    assert not Layout(running.root / "c").node_file.exists(), "a refused join leaves no node"


async def test_a_join_whose_answer_was_lost_can_be_repeated(running: Running) -> None:
    token = await running.token()
    layout = Layout(running.root / "a")
    await join(layout, token, "a", Role.CANARY)
    joined_as = await asyncio.to_thread(layout.message_key.read_bytes)

    def lose_the_answer() -> None:
        layout.node_file.unlink()
        layout.home.joinpath(".joining").mkdir()
        layout.identity.rename(layout.home / ".joining" / "identity")

    await asyncio.to_thread(lose_the_answer)
    await join(layout, token, "a", Role.CANARY)
    assert await asyncio.to_thread(layout.message_key.read_bytes) == joined_as


async def test_one_key_cannot_have_two_names(running: Running) -> None:
    """Otherwise a joiner could claim another node's key, and its messages would count as forged."""
    a = await joined(running, "a")
    b = Layout(running.root / "b")

    def borrow_the_key() -> None:
        identity = b.home / ".joining" / "identity"
        identity.mkdir(parents=True)
        shutil.copy(a.message_key, identity / "message.key")

    await asyncio.to_thread(borrow_the_key)
    with pytest.raises(RefusedError, match="name or key"):
        await join(b, await running.token(), "b", Role.STABLE)


async def test_a_large_body_is_refused_before_it_is_read(running: Running) -> None:
    """Fault 28, bounded: the join door is open to strangers."""
    async with session(context=unverified_context()) as nobody:
        url = f"{running.url}/v1/join"
        async with nobody.post(
            url, data=io.BytesIO(b"x" * (2 << 20)), server_hostname=COORDINATOR_HOST
        ) as answer:
            assert answer.status == 413
            assert (await answer.json())["code"] == "too-large"


async def test_only_its_origin_ends_a_red(running: Running) -> None:
    layouts = [await joined(running, name) for name in ("a", "b")]
    trusts = [await asyncio.to_thread(load_trust, layout) for layout in layouts]
    await sync(layouts[0])

    def signed(number: int, sequence: int, body: Red | Clear) -> str:
        payload = Payload(
            fleet=trusts[number].fleet.fleet,
            origin=trusts[number].name,
            epoch=1,
            sequence=sequence,
            issued=1.0,
            body=body,
        )
        return sign_message(payload, trusts[number].key).raw

    red = signed(0, 1, Red(kind=RedKind.READINESS, reason="x"))
    meddling = signed(1, 1, Clear(ref="a:1:1", reason="all fine"))
    rightful = signed(0, 2, Clear(ref="a:1:1", reason="repaired"))
    await sync(layouts[0], messages=[red])
    await sync(layouts[1], messages=[meddling])
    assert [each["open"] for each in await reds(running)] == [True]
    await sync(layouts[0], messages=[rightful])
    assert [each["open"] for each in await reds(running)] == [False]


async def reds(running: Running) -> list[dict[str, Any]]:
    return list(json.loads(await running.client.ask("GET", "/v1/watch"))["reds"])


async def test_a_token_of_another_coordinator_is_not_believed(running: Running) -> None:
    token = (await running.token()).model_copy(update={"fleet_sha256": "0" * 64})
    with pytest.raises(UntrustedError, match="not the one"):
        await join(Layout(running.root / "a"), token, "a", Role.STABLE)


async def test_who_may_call_what(running: Running) -> None:
    """Fault 35, for those who have no role; test_access.py has the roles."""
    a, b = await joined(running, "a"), await joined(running, "b")
    node_context = await asyncio.to_thread(client_context, a.tls.ca, a.tls)
    async with (
        session(context=unverified_context()) as nobody,
        session(context=node_context) as node,
    ):

        async def status(
            client: aiohttp.ClientSession, method: str, path: str, **options: Any
        ) -> int:
            url = f"{running.url}{path}"
            async with client.request(
                method, url, server_hostname=COORDINATOR_HOST, **options
            ) as answer:
                assert "Traceback" not in await answer.text()
                return answer.status

        assert await status(nobody, "GET", "/v1/nodes") == 401
        assert (
            await status(nobody, "GET", "/v1/nodes", headers={"Authorization": "Bearer x"}) == 401
        )
        assert await status(nobody, "POST", "/v1/sync", data=b"{}") == 401
        assert await status(node, "GET", "/v1/nodes") == 403
        assert await status(node, "POST", "/v1/targets", data=b"{}") == 403
        assert await status(node, "GET", "/v1/releases") == 200
        assert await status(nobody, "GET", "/nowhere") == 404
        assert await status(nobody, "POST", "/v1/join", data=b"[" * 5000) == 400
    impostor = NodeReport(
        node="a", agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
    )
    with pytest.raises(RefusedError, match="in the name of"):
        await sync(b, impostor)


async def test_only_an_operators_signature_makes_a_release(running: Running) -> None:
    release = await running.publish()
    listed = json.loads(await running.client.ask("GET", "/v1/releases"))["releases"]
    assert [each["id"] for each in listed] == [release]
    stranger = Running(
        running.root,
        running.url,
        SigningKey.generate(),
        running.client,
        running.task,
        running.settings,
    )
    with pytest.raises(RefusedError, match="trusted"):
        await stranger.publish("2026.9.6+evil")
    with pytest.raises(RefusedError, match="what its hash says"):
        await running.client.ask("PUT", f"/v1/blobs/{'0' * 64}", b"x")
    with pytest.raises(RefusedError, match="other content"):
        await running.publish()


async def test_an_agent_takes_nothing_that_no_operator_signed(running: Running) -> None:
    """P6: the coordinator's database can be changed; the agent still refuses."""
    layout = await joined(running, "a")
    release = await running.publish()
    trust = await asyncio.to_thread(load_trust, layout)
    context = await asyncio.to_thread(client_context, layout.tls.ca, layout.tls)
    async with session(context=context) as client:
        source = Releases(layout.home, trust.fleet, Coordinator(client, running.url))
        found = await source.release(release)
        assert await source.lock(found) == LOCK
        blob = running.settings.paths.blobs / sha256_hex(LOCK)
        await asyncio.to_thread(write_durable, blob, LOCK + b" ")
        with pytest.raises(UntrustedError, match="not what its hash says"):
            await source.lock(found)
        other = Releases(
            layout.home,
            trust.fleet.model_copy(update={"release_keys": [trust.key.public]}),
            Coordinator(client, running.url),
        )
        with pytest.raises(UntrustedError):
            await other.release(release)


async def test_a_target_needs_a_release_nodes_and_no_red(running: Running) -> None:
    with pytest.raises(RefusedError, match="no release"):
        await running.post("/v1/targets", {"release": "2026.9.6"})
    await running.publish()
    with pytest.raises(RefusedError, match="no node has joined"):
        await running.post("/v1/targets", {"release": "2026.9.6"})
    await sync(await joined(running, "a", Role.CANARY))
    planned = await running.post("/v1/targets", {"release": "2026.9.6", "dry_run": True})
    assert planned["state"] == "running"
    assert json.loads(await running.client.ask("GET", "/v1/rollouts"))["rollouts"] == []
    await running.post("/v1/targets", {"release": "2026.9.6"})
    with pytest.raises(RefusedError, match="still running"):
        await running.post("/v1/targets", {"release": "2026.9.6"})
    with pytest.raises(RefusedError, match="soak_s"):
        await running.post("/v1/targets", {"release": "2026.9.6", "soak_s": -1})


async def test_a_restarted_coordinator_goes_on(running: Running) -> None:
    layout = await joined(running, "a", Role.CANARY)
    await sync(layout)
    await running.publish()
    begun = await running.post("/v1/targets", {"release": "2026.9.6", "soak_s": 1})
    await running.restart()
    async with asyncio.timeout(10):
        while True:
            answer = await sync(layout)
            target = getattr(answer, "target", None)
            if target is not None:
                break
            await asyncio.sleep(0.1)
    assert target.rollout == begun["id"]
    assert target.soak_s == 1


async def test_a_second_coordinator_on_one_home_refuses(running: Running) -> None:
    with pytest.raises(ConflictError, match="in use"):
        await start(running.settings)


async def test_a_first_start_needs_an_operators_key(tmp_path: Path) -> None:
    settings = Settings(HomePaths(tmp_path / "home"), "t", "127.0.0.1", free_port(), None, [])
    with pytest.raises(ConfigError, match="release key"):
        await start(settings)
