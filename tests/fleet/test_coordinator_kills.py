"""The coordinator is killed while it answers each change that its API has, and repeats and loses nothing (fault 38)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.api.table import RESOURCES
from coordinator.bundling import BundleRequest, make_bundle
from coordinator.ceremony import add_capability, add_release
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.envelope import OPERATOR_CLEAR, seal
from shared.nodes import Cohort, CohortState
from shared.npm import Npm, find_tools
from shared.operatorclear import OperatorClear, identity
from shared.report import UpgradeReport
from shared.roster import Role
from tests.support.alertkit import HOOK, Receiver, receiving
from tests.support.coordinatorkit import LOCK, joined
from tests.support.killing import Trial, differences, plain, put_back, remains
from tests.support.mortal import Mortal, run_mortal
from tests.support.rolloutkit import Player
from tests.support.tufkit import manifest_of

NAMES = ("canary", "stable", "witness", "stolen")
WELL = {"release": "a" * 64, "version_on_disk": "2026.9.6", "weight": 100}
SKILL = "---\nname: {name}\ndescription: Says hello.\n---\n\nSay hello.\n"
WORTHY = ("settled.committing#1", "settled.committed#1", "answer.keeping#1", "answer.kept#1")
"""Where a change would be lost or made twice: around the commit that makes it, and around the one that keeps its
answer, where these are two."""
PATIENCE_S = 120.0
CHANGES = {route.action for resource in RESOURCES for route in resource.routes if route.takes_key}


@dataclass
class Prepared:
    """A home in which everything can be changed, and what the changes need."""

    mortal: Mortal
    home: Path
    nodes: dict[str, Player]
    release: str
    offer: bytes
    clear: bytes
    alert: str
    hook: Receiver
    said: dict[str, Any] = field(default_factory=dict)
    """By the canary."""


@pytest.fixture
async def prepared(tmp_path: Path) -> AsyncIterator[Prepared]:
    async with receiving() as hook, run_mortal(tmp_path, HOOK.format(url=hook.url)) as mortal:
        yield await prepare(mortal, hook)


async def prepare(mortal: Mortal, hook: Receiver) -> Prepared:
    release = await mortal.publish()
    for name in ("hello", "bye"):
        await sign(mortal, name)
    nodes = {}
    for name in NAMES:
        role = Role.CANARY if name == "canary" else Role.STABLE
        nodes[name] = await asyncio.to_thread(Player, await joined(mortal, name, role))
    red = nodes["witness"].red()
    await nodes["witness"].says(red, release="a" * 64)
    key = mortal.operator_keys.targets
    ref, digest = identity(red.raw)
    said = OperatorClear(
        fleet=red.payload.fleet, ref=ref, sha256=digest, reason="seen to", issued=1.8e9
    )
    alert = await first_alert(mortal)
    offer = await next_release(mortal)
    await mortal.kill()
    await asyncio.to_thread(doctor, mortal.settings.paths.database)
    home = mortal.root / "prepared"
    await asyncio.to_thread(put_back, mortal.settings.paths.root, home)
    clear = seal(said.canonical(), OPERATOR_CLEAR, key)
    return Prepared(mortal, home, nodes, release, offer, clear, alert, hook)


async def sign(mortal: Mortal, name: str) -> None:
    folder = mortal.root / name
    folder.mkdir()
    (folder / "SKILL.md").write_text(SKILL.format(name=name))
    now = SystemClock().now()
    made = await make_bundle(
        BundleRequest(folder, "canary", version="1.0.0"), Npm(find_tools()), now
    )
    published = await asyncio.to_thread((await mortal.desk()).published, mortal.client)
    bundle = add_capability(published, made.manifest, made.files, now)
    await mortal.offer(mortal.operator_keys.sign(bundle, published.root.signed))


async def next_release(mortal: Mortal) -> bytes:
    """An offer that is not handed in yet."""
    now = SystemClock().now()
    published = await asyncio.to_thread((await mortal.desk()).published, mortal.client)
    manifest = manifest_of("2026.9.7", LOCK, now)
    bundle = add_release(published, manifest, {sha256_hex(LOCK): LOCK}, now)
    return mortal.operator_keys.sign(bundle, published.root.signed).offer().canonical()


async def beat(scene: Prepared, **canary: Any) -> None:
    """Every node says how it is; the canary says more from now on."""
    scene.said.update(canary)
    for name, node in scene.nodes.items():
        worker = Cohort(queue="mail", build_id="one", state=CohortState.ACTIVE)
        cohort = worker if name == "witness" else None
        said = scene.said if name == "canary" else {}
        if name != "stolen":
            await node.says(**{**WELL, "cohort": cohort, **said})


async def first_alert(mortal: Mortal) -> str:
    async with asyncio.timeout(60):
        while True:
            found = (await mortal.get("/v1/alerts"))["alerts"]
            if mine := [each for each in found if each["rule"] == "red-open"]:
                return str(mine[0]["id"])
            await asyncio.sleep(0.1)


def doctor(database: Path) -> None:
    """What takes long to come about by itself: an upgrade that was rolled back, a capability in use, and sweeps that
    tell nodes."""
    index = json.dumps(
        {
            "name": "bye",
            "version": "1.0.0",
            "capability": "b" * 64,
            "state": "active",
            "nodes": ["canary"],
            "since": 1.8e9,
            "by": "op",
            "run": "00000000",
        }
    )
    with sqlite3.connect(database) as db:
        db.execute(
            "INSERT INTO rollbacks (order_id, release, node, at, reason) VALUES (?, ?, ?, ?, ?)",
            ("0badc0de:canary", "c" * 64, "canary", 1.7e9, "red"),
        )
        db.execute(
            "INSERT INTO capability_index (name, state, since, body) VALUES (?, ?, ?, ?)",
            ("bye", "active", 1.8e9, index),
        )
        for key, value in (("sla.record_only", "false"), ("sla.enabled", "false")):
            db.execute(
                "INSERT INTO settings (key, value, at, who) VALUES (?, ?, ?, ?)",
                (key, value, 1.8e9, "op"),
            )
    db.close()


def age_orders(database: Path) -> None:
    """As if they had been made an hour ago."""
    with sqlite3.connect(database) as db:
        for id_, body in db.execute("SELECT id, body FROM orders").fetchall():
            order = json.loads(body)
            order["created"] -= 3600
            db.execute("UPDATE orders SET body = ? WHERE id = ?", (json.dumps(order), id_))
    db.close()


async def play(trial: Trial, scene: Prepared) -> None:
    """Each change that there is, in an order in which each is possible."""
    scene.said.clear()
    await change_the_fleet(trial, scene)
    await change_what_is_told(trial, scene)
    await change_orders(trial, scene)
    await change_traffic(trial)
    await change_rollouts(trial, scene)
    await change_capabilities(trial)
    missing = CHANGES - {each.action for each in trial.asked}
    assert not missing, "each change is in the scene"


async def change_the_fleet(trial: Trial, scene: Prepared) -> None:
    change = trial.change
    await change("PUT /v1/settings/{key}", "/v1/settings/latest", {"value": "2026.9.6"})
    about = {"role": "witness", "labels": {"rack": "4"}}
    await change("PUT /v1/nodes/{name}/attributes", "/v1/nodes/witness/attributes", about)
    asked = {"name": "ann", "role": "viewer"}
    token = await change("POST /v1/operator-tokens", "/v1/operator-tokens", asked)
    assert token["token"].startswith("rollcall_op_")
    path = f"/v1/operator-tokens/{token['id']}"
    await change("DELETE /v1/operator-tokens/{id}", path)
    link = await change("POST /v1/page-links", "/v1/page-links", {})
    assert link["path"].startswith("/enter/")
    await change("POST /v1/node-tokens", "/v1/node-tokens", {"ttl_s": 60})
    revoked = await change(
        "POST /v1/nodes/{name}/revoke", "/v1/nodes/stolen/revoke", {"reason": "stolen"}
    )
    assert not revoked["again"]
    blob = b"another file"
    await change("PUT /v1/blobs/{sha256}", f"/v1/blobs/{sha256_hex(blob)}", blob)
    await change("POST /v1/trust", "/v1/trust", scene.offer)
    build = {"build_id": "one"}
    await change("POST /v1/cohorts/{queue}/drain", "/v1/cohorts/mail/drain", build)
    await change("POST /v1/cohorts/{queue}/resume", "/v1/cohorts/mail/resume", build)


async def change_what_is_told(trial: Trial, scene: Prepared) -> None:
    change = trial.change
    path = f"/v1/alerts/{scene.alert}/ack"
    await change("POST /v1/alerts/{id}/ack", path, {"reason": "mine"})
    asked = {"rule": "disk", "for_s": 3600, "reason": "known"}
    silence = await change("POST /v1/alert-silences", "/v1/alert-silences", asked)
    path = f"/v1/alert-silences/{silence['id']}"
    await change("DELETE /v1/alert-silences/{id}", path)
    before = len(scene.hook.received)
    await change("POST /v1/alert-channels/{channel}/test", "/v1/alert-channels/ops/test")
    tests = [each.json for each in scene.hook.received[before:]]
    sent = {each["id"] for each in tests if each["type"].endswith("test")}
    assert len(sent) == 1, "sent again it is the same event"
    await change("POST /v1/reds/clears", "/v1/reds/clears", scene.clear)


async def change_orders(trial: Trial, scene: Prepared) -> None:
    change, canary = trial.change, scene.nodes["canary"].layout
    asked = {"node": "canary", "kind": "restart", "terms": {"reason": "why not"}}
    made = await change("POST /v1/orders", "/v1/orders", asked)
    path = f"/v1/orders/{made['id']}"
    await change("POST /v1/orders/{id}/claim", f"{path}/claim", {"eta_s": 60}, node=canary)
    said = {"reason": "half way"}
    await change("POST /v1/orders/{id}/update", f"{path}/update", said, node=canary)
    ended = {"reason": "done", "result": "it is up"}
    await change("POST /v1/orders/{id}/complete", f"{path}/complete", ended, node=canary)
    other = await change("POST /v1/orders", "/v1/orders", {**asked, "node": "stable"})
    await trial.mortal.kill()
    await asyncio.to_thread(age_orders, trial.mortal.settings.paths.database)
    await trial.mortal.start()
    report = await change("POST /v1/sla/sweeps", "/v1/sla/sweeps", {})
    assert (report["recorded"], report["messages"]) == (1, 1)
    await change(
        "POST /v1/orders/{id}/cancel",
        f"/v1/orders/{other['id']}/cancel",
        {"reason": "never mind"},
        match=f'"pending.{other["revision"]}"',
    )


async def change_traffic(trial: Trial) -> None:
    change = trial.change
    share = {"percent": 20, "reason": "slowly"}
    await change("POST /v1/traffic/nodes/{name}", "/v1/traffic/nodes/stable", share)
    asked = {"name": "before", "reason": "to come back"}
    await change("POST /v1/traffic/snapshots", "/v1/traffic/snapshots", asked)
    share = {"percent": 70, "reason": "faster"}
    await change("POST /v1/traffic/nodes/{name}", "/v1/traffic/nodes/stable", share)
    path = "/v1/traffic/snapshots/before/restore"
    back = await change("POST /v1/traffic/snapshots/{name}/restore", path, {"reason": "too fast"})
    assert [(each["node"], each["then"]) for each in back["differences"]] == [("stable", 20)]
    await change("POST /v1/traffic/freeze", "/v1/traffic/freeze", {"reason": "storm"})
    await change("POST /v1/traffic/unfreeze", "/v1/traffic/unfreeze", {"reason": "over"})


async def change_rollouts(trial: Trial, scene: Prepared) -> None:
    change, canary = trial.change, scene.nodes["canary"]
    asked = {"release": scene.release, "strategy": "canary", "yes_really": True, "soak": "1h"}
    plan = await change("POST /v1/plans", "/v1/plans", asked)
    begun = await change("POST /v1/rollouts", "/v1/rollouts", {"plan": plan["sha256"]})
    id_ = begun["id"]
    await until(scene, id_, lambda nodes: nodes["canary"]["state"] == "pending")
    await verb(trial, id_, "pause", reason="lunch")
    await verb(trial, id_, "resume")
    await until(scene, id_, lambda nodes: nodes["canary"]["state"] == "pending")
    await verb(trial, id_, "skip", nodes=["stable", "witness"], reason="not today")
    path = f"/v1/orders/{id_}:canary"
    claimed = await change(
        "POST /v1/orders/{id}/claim", f"{path}/claim", {"eta_s": 60}, node=canary.layout
    )
    assert claimed["kind"] == "upgrade"
    await beat(scene, **moving(scene.release, f"{id_}:canary", "soaking"))
    await until(scene, id_, lambda nodes: nodes["canary"]["phase"] == "soaking")
    await until_its_share_is_noted(trial.mortal, "canary")
    await verb(trial, id_, "promote")
    await beat(scene, **moving(scene.release, f"{id_}:canary", "done", "dropped"))
    await until(scene, id_, lambda nodes: nodes["canary"]["state"] == "failed")
    retried = await verb(trial, id_, "retry", reason="again")
    order = next(each["order"] for each in retried["nodes"] if each["name"] == "canary")
    await until(scene, id_, lambda nodes: nodes["canary"]["state"] == "pending")
    path = f"/v1/orders/{order}/cancel"
    await change("POST /v1/orders/{id}/cancel", path, {"reason": "enough"})
    await verb(trial, id_, "abort", reason="home")
    await beat(scene, withdrawn=[order])
    await until(scene, id_, lambda nodes: nodes["canary"]["state"] == "skipped")
    target = {"release": scene.release, "strategy": "canary", "soak_s": 3600}
    again = await change("POST /v1/targets", "/v1/targets", target)
    await until(scene, again["id"], lambda nodes: nodes["canary"]["state"] == "pending")
    path = f"/v1/releases/{'c' * 64}/unblock"
    freed = await change("POST /v1/releases/{id}/unblock", path, {"reason": "seen to"})
    assert freed["forgotten"] == 1


async def verb(trial: Trial, id_: str, name: str, **asked: Any) -> Any:
    return await trial.change(
        f"POST /v1/rollouts/{{id}}/{name}", f"/v1/rollouts/{id_}/{name}", asked
    )


def moving(
    release: str, order: str, phase: str, outcome: str | None = None
) -> dict[str, UpgradeReport]:
    said = UpgradeReport(
        order=order, release=release, phase=phase, outcome=outcome, reason="why", began=1.8e9
    )
    return {"upgrade": said}


async def until(
    scene: Prepared, id_: str, holds: Callable[[dict[str, dict[str, Any]]], bool]
) -> None:
    for number in range(600):
        if number % 20 == 0:
            await beat(scene)
        found = await scene.mortal.get(f"/v1/rollouts/{id_}")
        if holds({node["name"]: node for node in found["nodes"]}):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(found)


async def until_its_share_is_noted(mortal: Mortal, node: str) -> None:
    """The coordinator does so by itself, a moment after it has heard; a node that goes on at once would be missed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            nodes = (await mortal.get("/v1/traffic"))["nodes"]
            if any(each["node"] == node and each["reason"] for each in nodes):
                return
            await asyncio.sleep(0.1)


async def change_capabilities(trial: Trial) -> None:
    """Until each run waits for a node, which never answers."""
    for verb, name in (("publish", "hello"), ("unpublish", "bye")):
        path = f"/v1/capabilities/{verb}"
        run = await trial.change(f"POST {path}", path, {"capability": name})
        async with asyncio.timeout(PATIENCE_S):
            while not await _waits_for_a_node(trial.mortal, run["id"]):
                await asyncio.sleep(0.1)


async def _waits_for_a_node(mortal: Mortal, run: str) -> bool:
    nodes = (await mortal.get(f"/v1/capability-runs/{run}"))["nodes"]
    return any(each["step"] == "ordered" for each in nodes)


async def whole(scene: Prepared, armed: Callable[[int], Sequence[str]]) -> tuple[Trial, Any]:
    """The scene from its beginning; what has been asked, and what remains."""
    home = scene.mortal.settings.paths.root
    await asyncio.to_thread(put_back, scene.home, home)
    await scene.mortal.start()
    trial = Trial(scene.mortal, partial(beat, scene), armed)
    await play(trial, scene)
    await scene.mortal.kill()
    return trial, await asyncio.to_thread(remains, home)


def compare(scene: tuple[Trial, Any], killed: tuple[Trial, Any]) -> None:
    for one, other in zip(scene[0].asked, killed[0].asked, strict=True):
        found = differences(plain(one.body), plain(other.body))
        assert not found, (other.action, found)
    for table, rows in scene[1].items():
        lost, more = rows - killed[1][table], killed[1][table] - rows
        found = differences([*map(json.loads, sorted(lost))], [*map(json.loads, sorted(more))])
        assert (len(lost), len(more)) == (0, 0), (table, found)


@pytest.mark.timeout(1200)
async def test_killed_around_every_change_it_makes_each_once_and_answers_as_if_nothing_was(
    prepared: Prepared,
) -> None:
    """Before the commit of one change, after that of the next; the slow test kills at all places."""
    quiet = await whole(prepared, lambda _: ())
    dying = await whole(prepared, lambda at: WORTHY[at % 2 :: 2])
    for each in dying[0].asked:
        assert len(each.killed) == 1, (each.action, each.killed)
    compare(quiet, dying)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_killed_at_every_place_that_a_change_goes_through(prepared: Prepared) -> None:
    """One place of each change in each playing of the scene."""
    quiet = await whole(prepared, lambda _: ())
    places = [each.points for each in quiet[0].asked]
    killed = 0
    for number in range(max(map(len, places))):

        def armed(at: int, number: int = number) -> Sequence[str]:
            return places[at][number : number + 1]

        dying = await whole(prepared, armed)
        killed += sum(len(each.killed) for each in dying[0].asked)
        compare(quiet, dying)
    assert killed > 3 * len(places)
