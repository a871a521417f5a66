"""A rollout's evidence: exported by a real coordinator, checked offline, and found out when anything was changed."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from coordinator.ceremony import Change, change
from coordinator.cli import app
from coordinator.evidence.archive import MANIFEST, pack, unpack
from coordinator.evidence.verify import Verified, verify
from coordinator.home import make_next_keys
from shared.canonical import canonical_json
from shared.clock import SystemClock
from shared.envelope import OPERATOR_CLEAR, seal
from shared.errors import ConflictError, UsageError
from shared.fleet import CoordinatorKeys
from shared.keys import SigningKey
from shared.messages import Red
from shared.metadata import fingerprint, read_root
from shared.operatorclear import OperatorClear, identity
from tests.support.coordinatorkit import Running, run_coordinator
from tests.support.rolloutkit import (
    Player,
    play,
    players,
    prove,
    reaches,
    red_and_clear,
    upgrade,
)


@dataclass
class Exported:
    rollout: str
    root: str
    raw: bytes
    heads: list[str]
    key: SigningKey
    fleet: str
    path: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three nodes upgraded, a red that its origin ended and one that operators ended, and a node revoked later."""
    root = tmp_path_factory.mktemp("evidence")
    async with run_coordinator(root) as running:
        release = await running.publish()
        nodes = await players(running, "a", "b", "c")
        rollout = (await play(running, nodes, release))["id"]
        await red_and_clear(nodes[0])
        await red_ended_by_operators(running, nodes[1])
        order = await running.post("/v1/orders", {"kind": "collect_logs", "node": "b"})
        await running.post(f"/v1/orders/{order['id']}/cancel", {"reason": "not needed"})
        await running.post("/v1/nodes/c/revoke", {"reason": "sold"})
        raw = await running.client.ask("GET", f"/v1/rollouts/{rollout}/evidence")
        rows = (await running.get("/v1/audit?limit=500"))["rows"]
        first = read_root(await running.client.ask("GET", "/tuf/1.root.json"))
        keys = running.settings.paths.keys
        made = Exported(
            rollout=rollout,
            root=fingerprint(first),
            raw=raw,
            heads=[row["sha256"] for row in rows],
            key=await asyncio.to_thread(SigningKey.load, keys / "roster.key"),
            fleet=nodes[0].trust.fleet.fleet,
            path=root / "evidence.tar.gz",
        )
    made.path.write_bytes(raw)
    return made


async def red_ended_by_operators(running: Running, node: Player) -> None:
    red = node.sign(Red(kind="stuck", reason="no way back"), 1.8e9)
    await node.says(red)
    ref, sha256 = identity(red.raw)
    fleet = node.trust.fleet.fleet
    clear = OperatorClear(fleet=fleet, ref=ref, sha256=sha256, reason="seen to", issued=1.8e9)
    raw = seal(clear.canonical(), OPERATOR_CLEAR, running.operator_keys.targets)
    await running.client.ask("POST", "/v1/reds/clears", raw)


async def test_a_second_attempt_is_proven_as_the_first_would_be(tmp_path: Path) -> None:
    async with run_coordinator(tmp_path) as running:
        release = await running.publish()
        nodes = await players(running, "a", "b")
        for node in nodes:
            await node.says()
        asked = {"release": release, "strategy": "immediate", "soak_s": 0}
        rollout = (await running.post("/v1/targets", asked))["id"]
        for node, outcome in zip(nodes, ("dropped", None), strict=True):
            await node.says(upgrade=upgrade(f"{rollout}:{node.name}", release, "staged", outcome))
        await reaches(running, lambda each: each["state"] == "halted")
        await running.post(f"/v1/rollouts/{rollout}/retry", {})
        begun = await reaches(
            running, lambda each: {n["state"] for n in each["nodes"]} == {"pending", "moving"}
        )
        orders = {each["name"]: each["order"] for each in begun["nodes"]}
        assert not orders["a"].startswith(rollout)
        await prove(running, nodes, orders, release)
        raw = await running.client.ask("GET", f"/v1/rollouts/{rollout}/evidence")
        first = read_root(await running.client.ask("GET", "/tuf/1.root.json"))
    found = await asyncio.to_thread(verify, raw, fingerprint(first))
    assert failing(found) == []
    _, members = await asyncio.to_thread(unpack, raw)
    notes = json.loads(members["readiness.json"])
    assert {each["body"]["upgrade"]["order"] for each in notes} >= set(orders.values())
    assert len(json.loads(members["plan.json"])) == 1


def repacked(exported: Exported, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """With members changed, and nothing else."""
    top, members = unpack(exported.raw)
    change(members)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue())


def resigned(exported: Exported, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """As a coordinator would write it that lies: under its own good signature."""
    top, members = unpack(exported.raw)
    change(members)
    del members[MANIFEST]
    return pack(top, exported.fleet, members, exported.key)


def failing(found: Verified) -> list[str]:
    return [each.name for each in found.checks if not each.holds]


def words(found: Verified, name: str) -> str:
    return next(each.words for each in found.checks if each.name == name)


def rewrite(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        value = json.loads(members[name])
        members[name] = canonical_json(change(value) or value)

    return apply


def test_everything_holds_with_nothing_but_the_root(exported: Exported) -> None:
    found = verify(exported.raw, exported.root)
    assert failing(found) == []
    assert found.ok
    assert words(found, "attestations of a").startswith("seen green by b, c, ready probe ")
    assert "a:1:" in words(found, "reds")
    assert "cleared by its origin" in words(found, "reds")
    assert "cleared by operators" in words(found, "reds")
    assert words(found, "releases") == "operators have signed 2026.9.6"


def test_the_archive_has_what_the_rollout_rests_on(exported: Exported) -> None:
    top, members = unpack(exported.raw)
    assert top == exported.rollout
    assert {
        "manifest.json",
        "rollout.json",
        "history.json",
        "readiness.json",
        "messages.json",
        "audit.json",
        "alerts.json",
        "trust/root/1.json",
    } <= members.keys()
    notes = json.loads(members["readiness.json"])
    phases = [row["body"]["upgrade"]["phase"] for row in notes if row["node"] == "a"]
    assert phases[:3] == ["staged", "attested", "done"]
    assert notes[0]["body"]["readiness"]["evidence_sha256"]
    actions = [row["action"] for row in json.loads(members["audit.json"])]
    assert "POST /v1/targets" in actions
    rules = {alert["rule"] for alert in json.loads(members["alerts.json"])}
    assert rules <= {"red-open", "metadata-expiring", "split-versions"}


def test_orders_of_the_time_of_the_rollout_are_in_it(exported: Exported) -> None:
    _, members = unpack(exported.raw)
    (row,) = json.loads(members["orders.json"])
    assert (row["order"]["kind"], row["order"]["node"]) == ("collect_logs", "b")
    assert [each["event"] for each in row["events"]] == ["create", "cancel"]
    assert row["events"][-1]["reason"].endswith("not needed")
    assert row["result_chars"] == 0
    found = verify(exported.raw, exported.root)
    assert words(found, "orders") == "1 beside the rollout's own, each with its history"
    assert words(found, "capabilities") == "nothing was published or unpublished then"


def test_an_archive_of_before_orders_were_kept_still_holds(exported: Exported) -> None:
    def older(members: dict[str, bytes]) -> None:
        del members["orders.json"], members["capabilities.json"]

    found = verify(resigned(exported, older), exported.root)
    assert found.ok
    assert "written before they were kept" in words(found, "orders")


def test_the_same_content_is_the_same_bytes(exported: Exported) -> None:
    assert resigned(exported, lambda members: None) == exported.raw


def test_every_byte_of_every_member_counts(exported: Exported) -> None:
    """One is flipped at the beginning, in the middle, and at the end of each."""
    _, members = unpack(exported.raw)
    assert len(members) >= 12
    for name, content in members.items():
        for place in {0, len(content) // 2, len(content) - 1}:

            def flip(changed: dict[str, bytes], name: str = name, place: int = place) -> None:
                raw = bytearray(changed[name])
                raw[place] ^= 1
                changed[name] = bytes(raw)

            found = verify(repacked(exported, flip), exported.root)
            assert not found.ok, f"{name} at {place}"


def test_a_member_that_is_missing_or_added_is_found(exported: Exported) -> None:
    _, members = unpack(exported.raw)
    for name in members:
        gone = repacked(exported, lambda changed, name=name: changed.pop(name))  # type: ignore[misc]
        assert not verify(gone, exported.root).ok, name
    more = repacked(exported, lambda changed: changed.update({"note.json": b"{}"}))
    assert "members" in failing(verify(more, exported.root))


def test_a_packed_byte_that_is_flipped_breaks_it_or_changes_nothing(exported: Exported) -> None:
    _, members = unpack(exported.raw)
    for place in range(0, len(exported.raw), max(1, len(exported.raw) // 150)):
        raw = bytearray(exported.raw)
        raw[place] ^= 1
        found = verify(bytes(raw), exported.root)
        if found.ok:
            assert unpack(bytes(raw))[1] == members


def test_another_fleets_root_proves_nothing(exported: Exported) -> None:
    found = verify(exported.raw, "0" * 64)
    assert "root" in failing(found)
    assert "members" in failing(found)
    assert words(found, "root") == "no root in the archive has this fingerprint"


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (rewrite("messages.json", lambda v: v[:1]), ["reds"]),
        (rewrite("rollout.json", lambda v: v.update(release="0" * 64)), ["releases"]),
        (rewrite("rollout.json", lambda v: v["nodes"][0].update(state="failed")), ["history"]),
        (rewrite("rollout.json", lambda v: v.update(id="00000000")), ["releases", "history"]),
        (rewrite("history.json", lambda v: [{"node": [], "state": "moving"}]), ["history"]),
        (rewrite("audit.json", lambda v: v[:2] + v[3:]), ["audit"]),
        (rewrite("audit.json", lambda v: v[1].update(who="somebody else")), ["audit"]),
        (rewrite("audit.json", lambda v: {"rows": v}), ["audit"]),
        (rewrite("readiness.json", lambda v: v[0].update(node="stranger")), ["readiness"]),
        (rewrite("orders.json", lambda v: v[0]["order"].update(node="stranger")), ["orders"]),
        (rewrite("orders.json", lambda v: v[0]["order"].update(state="completed")), ["orders"]),
        (rewrite("orders.json", lambda v: v[0].update(events=[])), ["orders"]),
        (rewrite("capabilities.json", lambda v: [{"id": "x"}]), ["capabilities"]),
    ],
    ids=[
        "messages",
        "release",
        "state",
        "id",
        "form",
        "cut",
        "who",
        "shape",
        "stranger",
        "other node",
        "other end",
        "no history",
        "no run",
    ],
)
def test_a_coordinator_that_lies_is_found_out_where_others_have_signed(
    exported: Exported, change: Callable[[dict[str, bytes]], None], fails: list[str]
) -> None:
    """Its own signature is good: what it wrote is judged by what the rest says."""
    found = verify(resigned(exported, change), exported.root)
    assert "members" not in failing(found)
    if fails == ["reds"]:
        assert [each for each in failing(found) if each.startswith("attestations of")]
    else:
        assert set(fails) <= set(failing(found))


def test_a_forged_attestation_is_found(exported: Exported) -> None:
    """The coordinator cannot sign for a node: taken away or changed, the node is not proven."""

    def forge(messages: list[str]) -> list[str]:
        return [raw.replace('"sig":"', '"sig":"AAAA', 1) for raw in messages]

    found = verify(resigned(exported, rewrite("messages.json", forge)), exported.root)
    assert {"messages", "attestations of a"} <= set(failing(found))


def test_a_head_that_somebody_noted_is_looked_for(exported: Exported) -> None:
    assert verify(exported.raw, exported.root, exported.heads[-1]).ok
    found = verify(exported.raw, exported.root, "1" * 64)
    assert failing(found) == ["audit"]


async def rollcall(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["evidence", *arguments])


async def test_the_commands_export_and_verify(running: Running, tmp_path: Path) -> None:
    release = await running.publish()
    rollout = (await play(running, await players(running, "a", "b"), release))["id"]
    config = ["--config", str(running.settings.paths.client)]
    path = tmp_path / "out.tar.gz"
    made = await rollcall("export", rollout, "-o", str(path), *config)
    assert (made.exit_code, path.stat().st_mode & 0o777) == (0, 0o600)
    empty = tmp_path / "empty"
    empty.touch()
    refused = await rollcall("verify", str(empty), "--root", "0" * 64)
    assert refused.exit_code == 1
    assert f"{empty} is empty" in str(refused.exception)
    again = await rollcall("export", rollout, "-o", str(path), *config)
    assert isinstance(again.exception, ConflictError)
    root = fingerprint(read_root(await running.client.ask("GET", "/tuf/1.root.json")))
    good = await rollcall("verify", str(path), "--root", root)
    assert (good.exit_code, good.stderr) == (0, f"rollout {rollout}: everything holds\n")
    assert "holds  attestations of a: seen green by b, ready probe " in good.stdout
    bad = await rollcall("verify", str(path), "--root", "0" * 64, "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["ok"] is False
    wrong = await rollcall("verify", str(path), "--root", "xyz")
    assert isinstance(wrong.exception, UsageError)
    none = await rollcall("export", "00000000", *config)
    assert "there is no rollout 00000000" in str(none.exception)


async def test_evidence_of_before_a_change_of_the_coordinators_keys_still_holds(
    running: Running,
) -> None:
    """The claims were signed under a roster of the old keys, which the archive brings along with what proves it."""
    release = await running.publish()
    rollout = (await play(running, await players(running, "a", "b"), release))["id"]
    first = fingerprint(read_root(await running.client.ask("GET", "/tuf/1.root.json")))
    await change_keys(running)
    await players(running, "d")
    raw = await running.client.ask("GET", f"/v1/rollouts/{rollout}/evidence")
    second = fingerprint(read_root(await running.client.ask("GET", "/tuf/2.root.json")))
    found = await asyncio.to_thread(verify, raw, first)
    assert failing(found) == []
    assert words(found, "root") == "version 1 has the fingerprint; versions up to 2 follow it"
    assert words(found, "fleet document") == "test, version 1, 2"
    later = await asyncio.to_thread(verify, raw, second)
    assert words(later, "root") == "version 2 has the fingerprint"
    assert later.ok, "operators' keys are the same, so what they signed before holds as well"


async def change_keys(running: Running) -> None:
    """Online key, roster key and authority, with the operator's signature."""
    now = SystemClock().now()
    await asyncio.to_thread(make_next_keys, running.settings.paths, now)
    keys = CoordinatorKeys.from_value(await running.get("/v1/coordinator"))
    published = await asyncio.to_thread((await running.desk()).published, running.client)
    bundle = change(published, keys, Change(), now)
    await running.offer(running.operator_keys.sign(bundle, published.root.signed))
