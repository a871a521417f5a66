"""Pause, abort and undo against real agents: what moves goes on, what is taken back goes back, and no red is raised."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.supervisor import Supervisor
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.failpoint import ARMED, VARIABLE
from shared.rollout import FleetView, NodeState, Rollout, RolloutState
from tests.fleet.conftest import NEW, OLD, Ready
from tests.fleet.test_fleet import all_green, until


def of(view: FleetView, id_: str) -> Rollout:
    assert view.rollout is not None
    assert view.rollout.id == id_
    return view.rollout


def state_of(view: FleetView, name: str) -> tuple[NodeState, str]:
    node = None if view.rollout is None else view.rollout.find(name)
    assert node is not None
    return node.state, node.phase


def plan_of(view: FleetView) -> str | None:
    return None if view.rollout is None else view.rollout.plan


async def rollout(fleet: MiniFleet, *words: str) -> dict[str, Any]:
    return dict(await fleet.rollcall("rollout", *words))


async def start(fleet: MiniFleet, release: str, *words: str) -> str:
    plan = await rollout(fleet, "plan", release, "--yes-really", *words)
    return str((await rollout(fleet, "start", plan["sha256"]))["id"])


async def test_paused_aborted_and_undone(ready: Ready) -> None:
    fleet = ready.fleet
    new = await fleet.freeze(NEW)
    id_ = await start(fleet, new, "--soak", "1s", "--settle", "120s")
    await until(
        fleet, lambda view: state_of(view, "canary")[0] is NodeState.MOVING, "the canary moves"
    )
    await rollout(fleet, "pause", "--reason", "lunch")
    view = await until(
        fleet, lambda view: state_of(view, "canary")[0] is NodeState.DONE, "it goes on to its end"
    )
    await asyncio.sleep(2)
    view = await fleet.watch()
    assert of(view, id_).state is RolloutState.PAUSED
    assert state_of(view, "stable")[0] is NodeState.WAITING
    await rollout(fleet, "resume")
    await until(fleet, lambda view: state_of(view, "stable")[1] == "soaking", "stable soaks")
    await rollout(fleet, "abort", "--yes", "--reason", "enough")
    view = await fleet.until_ended(id_)
    assert of(view, id_).state is RolloutState.ABORTED
    assert state_of(view, "stable")[0] is NodeState.ROLLED_BACK
    assert state_of(view, "witness")[0] is NodeState.SKIPPED
    running = {node.name: node.version_running for node in view.nodes}
    assert running == {"canary": NEW, "stable": OLD, "witness": OLD}
    assert view.reds == []
    blocked = await fleet.agent(fleet.node("stable"), "blocklist", "list")
    assert blocked["blocked"] == [], "to abort says nothing against the release"
    undone = await rollout(fleet, "undo", "--yes")
    view = await fleet.until_ended(undone["id"])
    assert of(view, undone["id"]).state is RolloutState.SUCCEEDED
    assert [node.name for node in of(view, undone["id"]).nodes if node.undoes] == ["canary"]
    view = await until(fleet, lambda view: all_green(view, OLD), "all on what they ran before")
    assert view.reds == []
    again = await start(fleet, new, "--soak", "1s", "--only", "canary")
    await until(
        fleet, lambda view: state_of(view, "canary")[0] is not NodeState.WAITING, "it is flagged"
    )
    await rollout(fleet, "abort", "--yes")
    view = await fleet.until_ended(again)
    assert of(view, again).state is RolloutState.ABORTED
    assert state_of(view, "canary")[0] in (NodeState.SKIPPED, NodeState.ROLLED_BACK)
    await until(
        fleet, lambda view: all_green(view, OLD), "it never got to the new one, or went back"
    )


KILLS = 5


def kills() -> str:
    """The coordinator dies in a write that is not committed yet, and directly after the one that is made instead."""
    dying = [f"rollout.saving#{2 * at + 1}" for at in range(KILLS)]
    return "\n".join([*dying, *(f"rollout.saved#{at + 1}" for at in range(KILLS))])


@pytest.fixture
async def dying() -> AsyncIterator[Ready]:
    """A fleet whose coordinator may die as often as it likes."""
    fleet = MiniFleet(
        Workspace(), STANDIN, standin=True, mdns=False, supervisor=Supervisor(patience=1_000)
    )
    try:
        await fleet.open()
        yield Ready(fleet, await fleet.install(OLD))
    finally:
        await fleet.close()


@pytest.mark.timeout(600)
async def test_a_coordinator_that_dies_at_its_writes_loses_and_repeats_nothing(
    dying: Ready,
) -> None:
    """Fault 38."""
    fleet = dying.fleet
    folder = fleet.root / "failpoints"
    folder.mkdir()
    new = await fleet.freeze(NEW)
    plan = await rollout(fleet, "plan", new, "--yes-really", "--soak", "1s", "--settle", "1s")
    await fleet.supervisor.stop("coordinator")
    fleet.coordinator_env[VARIABLE] = str(folder)
    fleet.start_coordinator()
    await fleet.watch()
    (folder / ARMED).write_text(kills())
    with contextlib.suppress(RollcallError):  # it may die before it answers
        await rollout(fleet, "start", plan["sha256"])
    view = await until(fleet, lambda view: plan_of(view) == plan["sha256"], "it has begun")
    id_ = view.rollout.id if view.rollout is not None else ""
    view = await fleet.until_ended(id_)
    left = (folder / ARMED).read_text().split()
    assert not left, "it was killed at every one of them"
    assert of(view, id_).state is RolloutState.SUCCEEDED, of(view, id_).reason
    assert all_green(view, NEW)
    kept = await rollout(fleet, "history", id_)
    path = [(each["node"], each["state"]) for each in kept["history"] if each["node"]]
    moves = [each for each in path if each[1] in ("moving", "done")]
    names = ("canary", "stable", "witness")
    assert moves == [(name, state) for name in names for state in ("moving", "done")]
    flags = [each for each in path if each[1] == "pending"]
    assert flags == [(name, "pending") for name in names], "no flag was set twice"
    assert view.reds == []
