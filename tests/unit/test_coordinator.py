"""The coordinator's API, over real TLS, with its real database."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.coordinator import Coordinator
from agent.join import join
from agent.layout import Layout
from agent.renewal import Renewal, is_due
from agent.trust import Trust, load_trust
from coordinator.ca import Authority
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.errors import ConflictError, UnavailableError, UntrustedError
from shared.fleet import JoinRequest, JoinToken, RenewalRequest, seal_join, seal_renewal
from shared.http import RefusedError, session
from shared.keys import SigningKey
from shared.messages import Clear, Payload, Red, RedKind, Verdict, sign_message
from shared.report import NodeReport, ReadinessSummary, SyncRequest
from shared.roster import COORDINATOR_HOST, Role
from shared.tls import (
    check_certificate,
    client_context,
    make_key,
    read_certificate,
    request_certificate,
    save_identity,
    unverified_context,
)
from tests.support.coordinatorkit import (
    Running,
    dialling,
    joined,
    run_coordinator,
    start,
    sync,
)
from tests.support.tufkit import Operator

LARGE = 3 << 20


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
    token = await running.token()
    for changed, reason in (("root_sha256", "not the one"), ("ca_sha256", "have not signed")):
        other = token.model_copy(update={changed: "0" * 64})
        with pytest.raises(UntrustedError, match=reason):
            await join(Layout(running.root / "a"), other, "a", Role.STABLE)


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


async def test_nodes_hear_where_the_others_say_that_they_are(running: Running) -> None:
    """Once, until an address changes; also from a coordinator that has just started."""
    a, b = await joined(running, "a"), await joined(running, "b")

    def says(*addresses: str) -> NodeReport:
        ready = ReadinessSummary(status=Verdict.GREEN)
        return NodeReport(node="b", agent_version="0", readiness=ready, addresses=list(addresses))

    assert (await sync(a)).addresses is None, "it did not ask"
    await sync(b, says("10.0.0.2:7465"))
    heard = (await sync(a, addresses="")).addresses
    assert heard is not None
    assert heard.nodes == {"b": ["10.0.0.2:7465"]}
    assert (await sync(a, addresses=heard.tag)).addresses is None
    await running.restart()
    assert (await sync(a, addresses=heard.tag)).addresses is None
    again = (await sync(a, addresses="")).addresses
    assert again == heard
    await sync(b, says("10.0.0.3:7465", "[fd00::3]:7465"))
    moved = (await sync(a, addresses=heard.tag)).addresses
    assert moved is not None
    assert moved.nodes == {"b": ["10.0.0.3:7465", "[fd00::3]:7465"]}
    with pytest.raises(RefusedError, match="addresses"):
        await sync(b, says().model_copy(update={"addresses": ["10.0.0.3:1"] * 9}))
    await running.client.ask("POST", "/v1/nodes/b/revoke", b"{}")
    gone = (await sync(a, addresses=moved.tag)).addresses
    assert gone is not None
    assert not gone.nodes


async def test_only_an_operators_signature_makes_a_release(running: Running) -> None:
    release = await running.publish()
    listed = json.loads(await running.client.ask("GET", "/v1/releases"))["releases"]
    assert [each["id"] for each in listed] == [release]
    stranger = replace(running, operator_keys=Operator("operator"))
    with pytest.raises(UntrustedError, match="not among those that may sign"):
        await stranger.publish("2026.9.6+evil")
    with pytest.raises(RefusedError, match="what its hash says"):
        await running.client.ask("PUT", f"/v1/blobs/{'0' * 64}", b"x")
    with pytest.raises(ConflictError, match="exists"):
        await running.publish()


async def test_an_artifact_of_many_pieces_arrives_whole(running: Running) -> None:
    artifact = os.urandom(LARGE)
    path = f"/v1/blobs/{sha256_hex(artifact)}"
    await running.client.ask("PUT", path, artifact)
    assert await running.client.ask("GET", path) == artifact


async def test_a_token_says_what_its_node_becomes(running: Running) -> None:
    terms = {"name": "mac1", "role": "canary", "site": "north"}

    async def token() -> JoinToken:
        return JoinToken.decode(str((await running.post("/v1/node-tokens", terms))["token"]))

    with pytest.raises(RefusedError, match="for name 'mac1'"):
        await join(Layout(running.root / "b"), await token(), "b", None)
    with pytest.raises(RefusedError, match="for role 'canary'"):
        await join(Layout(running.root / "c"), await token(), "mac1", Role.STABLE)
    identity = await join(Layout(running.root / "a"), await token(), "mac1", None)
    assert identity.role == "canary"
    (node,) = (await running.get("/v1/nodes"))["nodes"]
    assert (node["role"], node["site"]) == ("canary", "north")


async def test_who_joins_proves_that_it_holds_its_message_key(running: Running) -> None:
    key, token = SigningKey.generate(), await running.token()
    request = JoinRequest(
        secret=token.secret,
        name="a",
        csr_pem=request_certificate(make_key(), "a"),
        message_key=SigningKey.generate().public,
    )
    with pytest.raises(RefusedError, match="no key that is trusted"):
        await running.client.ask("POST", "/v1/join", seal_join(request, key))


async def test_a_node_that_was_installed_anew_comes_back_under_its_name(running: Running) -> None:
    first = await joined(running, "a", Role.CANARY)
    other = await joined(running, "b")
    asked = {"name": "a", "rejoin": True}
    token = JoinToken.decode(str((await running.post("/v1/node-tokens", asked))["token"]))
    again = Layout(running.root / "again")
    identity = await join(again, token, "a", None)
    assert identity.role == "canary", "it keeps its role"
    with pytest.raises(RefusedError, match="no key that is trusted"):
        await renewed(running, first)
    await renewed(running, again)
    assert (await sync(other)).roster is not None
    with pytest.raises(RefusedError, match="no node 'c'"):
        await running.post("/v1/node-tokens", {"name": "c", "rejoin": True})


async def renewed(running: Running, layout: Layout, following: SigningKey | None = None) -> Trust:
    trust = await asyncio.to_thread(load_trust, layout)

    async def nothing() -> None: ...

    async with dialling(layout) as dialler:
        coordinator = Coordinator(dialler, running.url)
        await Renewal(layout, trust, coordinator, SystemClock(), nothing).renew(following)
    return trust


async def test_a_certificate_is_renewed_under_the_message_key_alone(running: Running) -> None:
    """Also when the certificate has lapsed or the authority has changed: TLS proves nothing here."""
    layout = await joined(running, "a")
    before = await asyncio.to_thread(read_certificate, layout.tls.identity)
    await renewed(running, layout)
    after = await asyncio.to_thread(read_certificate, layout.tls.identity)
    assert before.serial_number != after.serial_number
    assert before.public_key() != after.public_key()
    life = after.not_valid_after_utc - after.not_valid_before_utc
    assert life.days == 30
    issued = after.not_valid_before_utc.timestamp()
    authority = running.settings.paths.tls.ca.read_text()
    assert not is_due(after, authority, issued + 9.9 * 86400)
    assert is_due(after, authority, issued + 10.1 * 86400)
    assert not await stranger_is_answered(running, "/v1/renew", b"{}")
    await sync(layout)


async def test_a_lapsed_certificate_and_a_dropped_authority_do_not_lock_a_node_out(
    running: Running,
) -> None:
    """What the message key is for: TLS alone would refuse both."""
    layout = await joined(running, "a")
    authority = await asyncio.to_thread(Authority.load, running.settings.paths.keys)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=60)
    other = await asyncio.to_thread(Authority.create, layout.home, "other", past)
    for issuer, moment in ((authority, past), (other, datetime.datetime.now(datetime.UTC))):
        key = make_key()
        await asyncio.to_thread(
            save_identity, layout.tls.identity, key, issuer.issue("a", key.public_key(), moment)
        )
        with pytest.raises(UnavailableError):
            await sync(layout)
        await renewed(running, layout)
        await sync(layout)


async def test_a_certificate_that_would_cut_the_node_off_is_not_taken(running: Running) -> None:
    layout = await joined(running, "a")
    authority = await asyncio.to_thread(Authority.load, running.settings.paths.keys)
    other = await asyncio.to_thread(Authority.create, layout.home, "other", _now())
    key, stranger = make_key(), make_key()
    good = authority.issue("a", key.public_key(), _now())
    later = _now() + datetime.timedelta(days=2)
    for pem, complaint in (
        (authority.issue("a", stranger.public_key(), _now()), "another key"),
        (authority.issue("b", key.public_key(), _now()), "does not name a"),
        (other.issue("a", key.public_key(), _now()), "authority"),
        (authority.issue("a", key.public_key(), later), "not valid now"),
        ("-----BEGIN CERTIFICATE-----", "not a certificate"),
    ):
        with pytest.raises(UntrustedError, match=complaint):
            check_certificate(pem, key, "a", [authority.pem], _now().timestamp())
    check_certificate(good, key, "a", [other.pem, authority.pem], _now().timestamp())
    await sync(layout)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


async def test_a_coordinator_put_back_from_a_backup_is_heard_again(running: Running) -> None:
    """Its counters begin above those that agents have seen: a revocation still counts (fault 39)."""
    a, b = await joined(running, "a"), await joined(running, "b")
    trust = await asyncio.to_thread(load_trust, a)
    for _ in range(3):
        await running.restart()
    heard = await sync(a)
    await trust.accept_roster(str(heard.roster).encode())
    await running.stop()
    backup = running.root / "backup.db"
    await asyncio.to_thread(forget_counters, running.settings.paths.database, backup)
    running.task = await start(running.settings)
    again = await sync(a)
    assert again.generation > heard.generation
    await running.post("/v1/nodes/b/revoke", {})
    assert await trust.accept_roster(str((await sync(a)).roster).encode())
    assert trust.peer_names() == []
    with pytest.raises(RefusedError):
        await sync(b)


def forget_counters(database: Path, copy: Path) -> None:
    shutil.copy(database, copy)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM meta")


async def stranger_is_answered(running: Running, path: str, body: bytes) -> bool:
    return (await running.reply("POST", path, body=body)).status < 400


async def test_a_node_changes_its_message_key(running: Running) -> None:
    layout = await joined(running, "a")
    trust = await asyncio.to_thread(load_trust, layout)
    old = trust.key
    following = await trust.following_key()
    fresh = await renewed(running, layout, following)
    await fresh.settle_key()
    assert fresh.key.public == following.public != old.public
    assert (await asyncio.to_thread(load_trust, layout)).key.public == following.public
    await renewed(running, layout)
    forged = seal_renewal(
        RenewalRequest(
            fleet=fresh.fleet.fleet,
            node="a",
            csr_pem=request_certificate(make_key(), "a"),
            message_key=old.public,
        ),
        old,
    )
    assert (await running.reply("POST", "/v1/renew", body=forged)).status == 403


async def test_a_revoked_node_is_refused_at_once_and_wakes_who_waits(running: Running) -> None:
    a, b = await joined(running, "a"), await joined(running, "b")
    trust = await asyncio.to_thread(load_trust, b)
    seen = await sync(b)
    await trust.accept_roster(str(seen.roster).encode())
    async with dialling(b) as dialler:
        report = NodeReport(
            node="b", agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
        )
        waiting = asyncio.create_task(
            Coordinator(dialler, running.url).sync(
                SyncRequest(
                    report=report,
                    wait_s=20,
                    roster=trust.roster.number,
                    repository=seen.repository,
                )
            )
        )
        await asyncio.sleep(0.3)
        answer = await running.post("/v1/nodes/a/revoke", {"reason": "stolen"})
        heard = await asyncio.wait_for(waiting, 5)
    assert heard.roster is not None
    assert await trust.accept_roster(heard.roster.encode())
    assert trust.peer_names() == []
    assert (answer["epoch"], answer["again"]) == (trust.roster.epoch, False)
    with pytest.raises(RefusedError, match="revoked"):
        await sync(a)
    with pytest.raises(RefusedError, match="revoked"):
        await renewed(running, a)
    assert (await running.post("/v1/nodes/a/revoke", {}))["again"] is True
    with pytest.raises(RefusedError, match="no node 'z'"):
        await running.post("/v1/nodes/z/revoke", {})


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
    begun = await running.post(
        "/v1/targets", {"release": "2026.9.6", "soak_s": 1, "yes_really": True}
    )
    await running.restart()
    async with asyncio.timeout(60):
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


async def until_alerts(running: Running, details: list[str]) -> None:
    async with asyncio.timeout(30):
        while [a["detail"] for a in (await running.get("/v1/alerts"))["alerts"]] != details:
            await asyncio.sleep(0.05)


async def test_before_operators_have_signed_nobody_joins(tmp_path: Path) -> None:
    async with run_coordinator(tmp_path, signed=False) as running:
        with pytest.raises(RefusedError, match="no operator has signed"):
            await running.token()
        await until_alerts(running, ["rollcall keys init"])
        await running.sign_fleet()
        await until_alerts(running, [])
        await joined(running, "a")
