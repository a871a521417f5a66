"""What a fleet must survive, on real processes that are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from agent.openclaw.tree import hash_tree
from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.fleet import MiniFleet, Node
from scripts.minifleet.report import build_report
from shared.errors import CommandError
from shared.rollout import FleetView
from shared.roster import Role
from tests.fleet.conftest import NEW, OLD, Ready

PATIENCE_S = 150.0


async def until(fleet: MiniFleet, good: Callable[[FleetView], bool], what: str) -> FleetView:
    generation = 0
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = await fleet.watch(generation)
            generation = view.generation
            if good(view):
                return view


def phase_of(view: FleetView, name: str) -> str:
    node = next(node for node in view.nodes if node.name == name)
    return node.upgrade.phase if node.upgrade is not None else ""


def gateway_pid(node: Node) -> int:
    """0 while a start has been announced and not recorded yet."""
    return int(json.loads((node.home / "service" / "gateway.json").read_text())["pid"] or 0)


def all_green(view: FleetView, version: str) -> bool:
    return all(node.status == "green" and node.version_running == version for node in view.nodes)


async def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("role", "how"),
    [
        (Role.CANARY, How.LEAK),
        (Role.STABLE, How.READY),
        pytest.param(Role.WITNESS, How.READY, marks=pytest.mark.slow),
    ],
)
async def test_a_bad_release_is_rolled_back_broadcast_and_frozen(
    ready: Ready, role: Role, how: How
) -> None:
    fleet = ready.fleet
    node = fleet.node(role.value)
    state = node.gateway_home / ".openclaw"
    workspace_file = state / "workspace" / "AGENTS.md"
    workspace_file.parent.mkdir()
    workspace_file.write_text("as it was")
    before = {path.name: path.read_bytes() for path in state.glob("*.json")}
    bad = await fleet.freeze(
        NEW, breakage=await break_release(fleet.npm, role, how, fleet.packages)
    )
    rollout = await fleet.set_target(bad, strategy="canary", soak_s=20 if how is How.LEAK else 1)
    await fleet.until_ended(rollout)
    view = await until(
        fleet,
        lambda view: (
            all(len(red.acked_by) == 2 for red in view.reds)
            and sum(bool(each.frozen_by) for each in view.nodes) == 2
            and all(each.status == "green" for each in view.nodes)
        ),
        "acked, frozen, and green on what each node ran",
    )
    report = build_report(view, before=OLD, after=NEW, seconds=0, standin=True)
    broken = next(each for each in report["nodes"] if each["name"] == node.name)
    assert report["outcome"] == "halted"
    assert broken["rolled_back"]
    assert broken["running_version"] == OLD
    assert [each["name"] for each in report["nodes"] if each["frozen"]] == [
        each.name for each in fleet.nodes if each is not node
    ]
    assert [red["origin"] for red in report["reds"]] == [node.name]
    assert set(report["reds"][0]["acked_by"]) == {each.name for each in fleet.nodes} - {node.name}
    assert {path.name: path.read_bytes() for path in state.glob("*.json")} == before
    assert workspace_file.read_text() == "as it was"
    with pytest.raises(Exception, match="red of"):
        await fleet.set_target(bad, strategy="canary", soak_s=1)
    key = report["reds"][0]["key"]
    await fleet.rollcall_agent(node, "clear", key, "--reason", "looked at it")
    await until(fleet, lambda view: not any(n.frozen_by for n in view.nodes), "the freeze is over")
    with pytest.raises(CommandError, match=f"failed on {node.name} before"):
        await fleet.set_target(bad, strategy="canary", soak_s=1)


async def test_rollback_with_coordinator_and_network_gone(ready: Ready) -> None:
    fleet = ready.fleet
    node = fleet.node("canary")
    new = await fleet.freeze(NEW)
    state = node.gateway_home / ".openclaw"
    before = await asyncio.to_thread(lambda: json.loads((state / "openclaw.json").read_text()))
    view = await fleet.until_ended(await fleet.set_target(new, strategy="canary", soak_s=0))
    assert all_green(view, NEW)
    for name in ("coordinator", "stable", "witness"):
        await fleet.supervisor.stop(name)
    report = await fleet.agent(node, "rollback", "--reason", "at three in the morning")
    assert report["upgrade"]["outcome"] == "rolled_back"
    assert report["version_running"] == OLD
    assert json.loads((state / "openclaw.json").read_text()) == before
    with pytest.raises(Exception, match="nothing to roll back"):
        await fleet.agent(node, "rollback")


async def test_rollback_while_the_agent_is_down(ready: Ready) -> None:
    fleet = ready.fleet
    node = fleet.node("witness")
    new = await fleet.freeze(NEW)
    await fleet.until_ended(await fleet.set_target(new, strategy="immediate", soak_s=0))
    await fleet.supervisor.stop("witness")
    assert psutil.pid_exists(gateway_pid(node)), "the gateway stays up when the agent is stopped"
    assert (await fleet.agent(node, "rollback", "--dry-run"))["possible"]
    assert (await fleet.agent(node, "bookmark", "list"))["bookmarks"][-1]["needed"]
    assert (await fleet.agent(node, "blocklist", "list"))["blocked"] == []
    report = await fleet.agent(node, "rollback")
    assert report["upgrade"]["outcome"] == "rolled_back"
    fleet.start_agent(node)
    await until(
        fleet,
        lambda view: (
            sum(bool(each.frozen_by) for each in view.nodes) == 2
            and any(each.name == "witness" and each.version_running == OLD for each in view.nodes)
        ),
        "the red that was raised offline is delivered after the start, and the old release serves",
    )


async def test_a_peer_that_was_down_learns_of_a_red_when_it_returns(ready: Ready) -> None:
    """It goes once the canary has begun: before that the rollout would be held for its sake."""
    fleet = ready.fleet
    bad = await fleet.freeze(
        NEW, breakage=await break_release(fleet.npm, Role.CANARY, How.READY, fleet.packages)
    )
    rollout = await fleet.set_target(bad, strategy="canary", soak_s=0)
    await until(
        fleet,
        lambda view: any(
            node.name == "canary" and node.state == "moving"
            for node in (view.rollout.nodes if view.rollout else [])
        ),
        "the canary has begun",
    )
    await fleet.supervisor.stop("witness")
    await fleet.until_ended(rollout)
    fleet.start_agent(fleet.node("witness"))
    await until(
        fleet,
        lambda view: (
            any(n.name == "witness" and n.frozen_by for n in view.nodes)
            and all(len(red.acked_by) == 2 for red in view.reds if red.origin == "canary")
        ),
        "the witness knows, and has signed for it",
    )


async def test_a_journal_lost_in_mid_upgrade_puts_back_what_the_bookmark_saved(
    ready: Ready,
) -> None:
    """Fault 9 at its worst moment: the new release has migrated the state and does not get ready."""
    fleet = ready.fleet
    node = fleet.node("canary")
    state = node.gateway_home / ".openclaw" / "openclaw.json"
    before = await asyncio.to_thread(state.read_bytes)
    hang = await break_release(fleet.npm, Role.CANARY, How.READY, fleet.packages)
    await fleet.set_target(await fleet.freeze(NEW, breakage=hang), strategy="canary", soak_s=1)
    await until(fleet, lambda view: phase_of(view, "canary") == "restarted", "it hangs")
    await fleet.supervisor.stop("canary")
    assert await asyncio.to_thread(state.read_bytes) != before
    journal = node.home / "journal" / "upgrade.log"
    await asyncio.to_thread(journal.write_bytes, b"\0" * 4096)
    fleet.start_agent(node)
    await until(
        fleet,
        lambda view: (
            any(red.kind == "journal" and red.open for red in view.reds) and all_green(view, OLD)
        ),
        "the old release serves again, and one red says why",
    )
    assert await asyncio.to_thread(state.read_bytes) == before


async def test_a_changed_tree_is_red_and_is_never_switched_to(ready: Ready) -> None:
    """P1."""
    fleet = ready.fleet
    new = await fleet.freeze(NEW)
    tree = fleet.root / "store" / new
    rollout = await fleet.set_target(new, strategy="canary", soak_s=60)
    await until(fleet, lambda view: phase_of(view, "canary") == "soaking", "the canary soaks")
    assert (await asyncio.to_thread(hash_tree, tree))[1] > 0
    package = tree / "node_modules" / "openclaw" / "package.json"
    package.write_text(package.read_text().replace(f'"version": "{NEW}"', '"version": "2026.9.5"'))
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "halted"
    assert "openclaw.lock says 2026.9.6" in view.rollout.reason
    canary = next(node for node in view.nodes if node.name == "canary")
    assert canary.version_running == OLD
