"""The coordinator's home, online keys and program are an attacker's (P6): real agents, real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from scripts.minifleet.fleet import MiniFleet, Node
from shared.canonical import canonical_json, sha256_hex
from shared.metadata import moment, read_timestamp, sign, to_bytes
from shared.release import ReleaseManifest, parse_release
from tests.fleet.conftest import NEW, OLD, Ready
from tests.support.fleetkit import PATIENCE_S, status, until_status
from tests.support.stolen import StolenCoordinator


@pytest.fixture
async def thief(ready: Ready) -> AsyncIterator[StolenCoordinator]:
    """The coordinator of a fleet on the old release is stopped, and the thief answers in its place. The
    new release is signed, and was never ordered."""
    fleet = ready.fleet
    await fleet.freeze(NEW)
    await fleet.supervisor.stop("coordinator")
    stolen = StolenCoordinator(fleet.root / "coordinator", fleet.coordinator_port)
    await stolen.start()
    yield stolen
    await stolen.stop()


def ended(release: str, outcome: str) -> Callable[[dict[str, Any]], bool]:
    def good(report: dict[str, Any]) -> bool:
        upgrade = report["upgrade"]
        return bool(upgrade["release"] == release and upgrade["outcome"] == outcome)

    return good


async def test_a_stolen_coordinator_moves_nodes_among_signed_releases_and_no_further(
    ready: Ready, thief: StolenCoordinator
) -> None:
    fleet = ready.fleet
    new = next(each for each in thief.repository.releases if each.manifest.name == NEW)
    old = next(each for each in thief.repository.releases if each.id == ready.old)
    store = fleet.root / "store"
    trees = {path.name for path in store.iterdir() if not path.name.startswith(".")}

    thief.blobs[new.manifest.lock_sha256] = b'{"lockfileVersion": 3, "packages": {}}'
    thief.order(new.id)
    for node in fleet.nodes:
        report = await until_status(fleet, node, ended(new.id, "dropped"), "dropping it")
        assert "not what its hash says" in report["upgrade"]["reason"]
    assert trees == {path.name for path in store.iterdir() if not path.name.startswith(".")}

    thief.blobs.clear()
    for trick in ({"release": "../../../tmp/x"}, {"release": new.id, "order": "../../x"}):
        thief.order(**trick)
        await asyncio.sleep(2)
        report = await status(fleet, fleet.nodes[0])
        assert (report["version_running"], report["upgrade"]["outcome"]) == (OLD, "dropped")

    thief.order(new.id)
    for node in fleet.nodes:
        await until_status(fleet, node, ended(new.id, "done"), "on the new release")
    thief.order(old.id)
    for node in fleet.nodes:
        report = await until_status(fleet, node, ended(old.id, "dropped"), "refusing to go back")
        assert "is older than" in report["upgrade"]["reason"]

    evil = _evil(new.manifest)
    thief.sign_targets({"evil.release.json": evil})
    thief.order(sha256_hex(evil))
    for node in fleet.nodes:
        report = await until_status(
            fleet, node, lambda it: "refused" in it["waiting"], "refusing it"
        )
        assert report["upgrade"]["release"] == old.id, "no upgrade was begun"
        assert any("no release is installed" in each for each in report["alerts"])
        assert report["version_running"] == NEW
        assert report["readiness"]["status"] == "green"


async def test_frozen_metadata_stops_installs_but_neither_reds_nor_rollbacks(
    ready: Ready, thief: StolenCoordinator
) -> None:
    """Fault 25, whole."""
    fleet = ready.fleet
    new = next(each for each in thief.repository.releases if each.manifest.name == NEW)
    canary, stable, _ = fleet.nodes
    _freeze(thief)
    for node in fleet.nodes:
        await until_status(
            fleet, node, lambda it: "expired" in str(it["alerts"]), "noticing by itself"
        )
    thief.order(new.id)
    for node in fleet.nodes:
        report = await until_status(
            fleet, node, lambda it: "expired" in it["waiting"], "refusing it"
        )
        assert report["version_running"] == OLD
        assert any("expired" in each for each in report["alerts"])
    thief.target = None
    await fleet.agent(canary, "rollback", "--reason", "the first install was wrong")
    report = await until_status(
        fleet, stable, lambda it: bool(it["frozen_by"]), "frozen by the red"
    )
    assert report["frozen_by"][0].startswith("canary:")


def _evil(manifest: ReleaseManifest) -> bytes:
    changed = {**manifest.model_dump(mode="json"), "name": "evil", "allow_scripts": ["openclaw"]}
    raw = canonical_json(changed)
    assert parse_release(raw).manifest.name == "evil"
    return raw


def _freeze(thief: StolenCoordinator) -> None:
    """A timestamp that ends in a moment, and nothing after it: what a day without news comes to."""
    last = read_timestamp(thief.repository.read("timestamp.json"))
    last.signed.version += 1
    last.signed.expires = moment(time.time() + 6)
    last.signatures.clear()
    sign(last, [thief.ring.current.online])
    thief.tuf["timestamp.json"] = to_bytes(last)
    thief.number += 1


async def test_the_coordinators_keys_are_changed_under_a_running_fleet(ready: Ready) -> None:
    """A planned change overlaps; after a theft the old authority counts no more at once, and a node that
    was off meanwhile finds back by metadata that proves itself."""
    fleet = ready.fleet
    await _change_keys(fleet, theft=False)
    await _change_keys(fleet, theft=True)
    new = await fleet.freeze(NEW)
    rollout = await fleet.set_target(new, strategy="canary", soak_s=1)
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason


async def _change_keys(fleet: MiniFleet, *, theft: bool) -> None:
    canary = fleet.nodes[0]
    before = {node.name: _certificate(node) for node in fleet.nodes}
    if theft:
        await fleet.supervisor.stop("canary")
    home = str(fleet.root / "coordinator")
    await fleet.rollcall("coordinator", "rotate", "--home", home)
    words = ["--drop-authority"] if theft else []
    out = str(fleet.root / f"one-{theft}.bundle")
    await fleet.rollcall("keys", "rotate", *words, *fleet.desk(), "--out", out, "--yes")
    if theft:
        fleet.start_agent(canary)
    await _until_all(fleet, lambda node: _certificate(node) != before[node.name], "renewed")
    if not theft:
        out = str(fleet.root / "two.bundle")
        await fleet.rollcall(
            "keys", "rotate", "--drop-authority", *fleet.desk(), "--out", out, "--yes"
        )
    shown = await fleet.rollcall("keys", "show", *fleet.desk()[:2])
    assert shown["authorities"] == 1


def _certificate(node: Node) -> bytes:
    return (node.home / "identity" / "tls.pem").read_bytes()


async def _until_all(fleet: MiniFleet, good: Callable[[Node], bool], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(good(node) for node in fleet.nodes):
                await asyncio.sleep(0.3)
    except TimeoutError:
        late = [node.name for node in fleet.nodes if not good(node)]
        raise AssertionError(f"not {what}: {late}") from None


async def test_a_revoked_node_is_locked_out_with_the_coordinator_off(ready: Ready) -> None:
    """Fault 27, whole: one reachable peer hears of it, the coordinator goes, the other learns it."""
    fleet = ready.fleet
    canary, stable, witness = fleet.nodes
    await fleet.supervisor.stop("stable")
    answer = await fleet.rollcall("node", "revoke", "witness", "--reason", "stolen", "--yes")
    assert answer["not_heard"] == ["stable"]
    await fleet.supervisor.stop("coordinator")
    fleet.start_agent(stable)
    for node in (canary, stable):
        report = await until_status(
            fleet, node, lambda it: "witness" not in it["peers"], "rid of the witness"
        )
        assert report["roster_epoch"] >= answer["epoch"]
    await fleet.agent(witness, "rollback", "--reason", "a red that nobody takes")
    await asyncio.sleep(3)
    for node in (canary, stable):
        report = await status(fleet, node)
        assert report["open_reds"] == []
        assert report["readiness"]["status"] == "green"
