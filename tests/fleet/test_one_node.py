"""One node, with the stand-in: what an upgrade meets besides success. The tests share the node, and each leaves
it on the old release."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.campaign import plan
from scripts.minifleet.killing import NEW, OLD, Rig
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.report import NodeReport, UpgradeReport
from shared.roster import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOGETHER = 16
"""Kills in one upgrade: the campaign command has one at a time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(Workspace(), real=False)
    try:
        rig.node.extra = 'drain_timeout = "4s"\n'
        await rig.open()
        yield rig
    finally:
        await rig.close()


def gateway_pid(rig: Rig) -> int:
    return int(json.loads((rig.node.home / "service" / "gateway.json").read_text())["pid"])


async def report(rig: Rig) -> NodeReport:
    return await rig.fleet.status(rig.node)


async def upgrade_to(rig: Rig, release: str) -> UpgradeReport:
    rollout = await rig.fleet.set_target(release, strategy="immediate", soak_s=0)
    await rig.fleet.until_ended(rollout)
    found = (await report(rig)).upgrade
    assert found is not None
    assert found.order.startswith(rollout)
    return found


async def blocked(rig: Rig) -> list[str]:
    answer = await rig.fleet.agent(rig.node, "blocklist", "list")
    return [each["release"] for each in answer["blocked"]]


async def test_a_release_with_the_same_gateway_does_not_touch_it(rig: Rig) -> None:
    """Another name and expiry, as with another agent: the link moves, and the gateway runs on. The first of the
    tests: once a newer release was proven here, its floor would refuse this one."""
    before, pid = await report(rig), gateway_pid(rig)
    twin = await rig.fleet.freeze(OLD, name="twin")
    upgrade = await upgrade_to(rig, twin)
    now = await report(rig)
    assert (upgrade.outcome, now.release, gateway_pid(rig)) == ("done", twin, pid)
    assert now.readiness.status == "green"
    back = NodeReport.from_value(await rig.fleet.agent(rig.node, "rollback"))
    assert back.upgrade is not None
    assert back.upgrade.outcome == "rolled_back"
    assert ((await report(rig)).release, gateway_pid(rig)) == (before.release, pid)
    await rig.reset()


async def test_a_busy_gateway_is_left_alone_at_the_deadline(rig: Rig) -> None:
    pid, busy = gateway_pid(rig), rig.node.gateway_home / ".openclaw" / "busy"
    busy.write_text("answering alice")
    try:
        upgrade = await upgrade_to(rig, rig.new)
    finally:
        busy.unlink()
    assert upgrade.outcome == "dropped"
    assert "answering alice" in upgrade.reason
    now = await report(rig)
    assert (gateway_pid(rig), now.open_reds, await blocked(rig)) == (pid, [], [])
    assert json.loads((rig.node.home / "traffic.json").read_text())["percent"] == 100


async def test_what_fails_in_the_rehearsal_costs_no_outage(rig: Rig) -> None:
    fleet, pid = rig.fleet, gateway_pid(rig)
    broken = await break_release(fleet.npm, Role.CANARY, How.DOCTOR, fleet.packages)
    bad = await fleet.freeze(NEW, name="bad-config", breakage=broken)
    state = rig.node.gateway_home / ".openclaw"
    before = (state / "openclaw.json").read_bytes()
    upgrade = await upgrade_to(rig, bad)
    assert upgrade.outcome == "dropped"
    assert "rehearsal: Doctor does not pass" in upgrade.reason
    assert (gateway_pid(rig), (state / "openclaw.json").read_bytes()) == (pid, before)
    assert await blocked(rig) == [bad], "P8"
    with pytest.raises(RollcallError, match="failed on canary before"):
        await upgrade_to(rig, bad)
    await fleet.rollcall_agent(rig.node, "blocklist", "clear", bad[:12])
    assert await blocked(rig) == []
    with pytest.raises(RollcallError, match="no release"):
        await fleet.rollcall_agent(rig.node, "blocklist", "clear", bad[:12])


async def test_what_fails_in_service_is_rolled_back_and_the_loss_is_named(rig: Rig) -> None:
    fleet = rig.fleet
    broken = await break_release(fleet.npm, Role.CANARY, How.READY, fleet.packages)
    bad = await fleet.freeze(NEW, name="bad-in-service", breakage=broken)
    upgrade = await upgrade_to(rig, bad)
    assert upgrade.outcome == "rolled_back"
    assert upgrade.way_back is not None
    assert upgrade.way_back.restores_state
    assert upgrade.lost is not None
    assert any(name.endswith("openclaw.json") for name in upgrade.lost.named)
    await rig.reset()


async def test_bookmarks_are_listed_shown_and_pruned(rig: Rig) -> None:
    fleet, node = rig.fleet, rig.node
    assert await rig.up([]) == "done"
    plan_of = await fleet.agent(node, "rollback", "--dry-run")
    assert plan_of["possible"]
    assert (plan_of["running"], plan_of["previous"]) == (NEW, OLD)
    listed = (await fleet.agent(node, "bookmark", "list"))["bookmarks"]
    newest = listed[-1]
    assert "rollback" in newest["needed"]
    shown = await fleet.agent(node, "bookmark", "show", newest["upgrade"])
    assert shown["folders"][0]["sha256"]
    assert shown["previous_version"] == OLD
    with pytest.raises(RollcallError, match="no bookmark"):
        await fleet.agent(node, "bookmark", "show", "nothing")
    would = await fleet.agent(node, "bookmark", "prune", "--keep", "0", "--dry-run")
    assert len(would["pruned"]) < len(listed)
    went = await fleet.agent(node, "bookmark", "prune", "--keep", "0")
    assert went == would
    left = (await fleet.agent(node, "bookmark", "list"))["bookmarks"]
    assert newest["upgrade"] in [each["upgrade"] for each in left]
    assert not list(node.gateway_home.glob("*.failed-*")), "what rollbacks set aside goes with them"
    assert await rig.back([]) == "rolled_back"
    await rig.reset()


async def test_without_the_previous_tree_it_stays_up_and_says_so(rig: Rig) -> None:
    """Fault 13."""
    assert await rig.up([]) == "done"
    pid, store = gateway_pid(rig), rig.fleet.root / "store"
    old = (await report(rig)).standing
    assert old is not None
    trees = [path for path in store.iterdir() if path.name[0] != "." and path.name != old.release]
    moved = [path.rename(path.with_name(f"{path.name}-away")) for path in trees]
    with pytest.raises(RollcallError, match="failed"):
        await rig.fleet.agent(rig.node, "rollback", "--reason", "a trial")
    now = await report(rig)
    assert now.upgrade is not None
    assert now.upgrade.outcome == "stuck"
    assert "is gone" in now.upgrade.reason
    assert (gateway_pid(rig), now.version_running) == (pid, NEW)
    assert any("is gone" in red for red in now.open_reds)
    for path in moved:
        path.rename(path.with_name(path.name.removesuffix("-away")))
    assert await rig.back([]) == "rolled_back", "a person may try once more"
    await rig.reset()


@pytest.mark.timeout(1200)
async def test_killed_at_every_named_place_it_comes_through(rig: Rig) -> None:
    """P4, faults 8 and 10; several kills in each upgrade."""
    points = await rig.discover()
    assert len(points.up) > 60
    assert len(points.back) > 15
    await rig.reset()
    for trip in plan(points, None, TOGETHER):
        if await rig.up(trip.up, restage=trip.restage) == "done":
            await rig.back(trip.back)
        await rig.reset()
    assert len(rig.tally.killed) > 0.9 * len(points.up + points.back)
