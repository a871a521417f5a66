"""A node's agent changes itself under a gateway that serves on, and comes back from one that is broken.

The canary runs through its launcher, from wheels that are built here; its peers do not, and say so.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.minifleet.fleet import MiniFleet, Node
from shared.errors import CommandError
from shared.rollout import FleetView, NodeView
from tests.fleet.conftest import OLD, Ready
from tests.fleet.test_fleet import all_green, gateway_pid, until
from tests.support.wheelkit import build_wheel, download_dependencies

BROKEN = {
    "agent/daemon.py": (
        "        await self.conductor.recover()\n",
        '        raise RuntimeError("this agent is broken")\n',
    )
}


@pytest.fixture
async def wheels(tmp_path: Path) -> dict[str, Path]:
    """By version; `deps` is the folder of what they need."""
    work = {
        "deps": asyncio.to_thread(download_dependencies, tmp_path / "deps"),
        "0.1.0": asyncio.to_thread(build_wheel, "0.1.0", tmp_path, {}),
        "0.1.1": asyncio.to_thread(build_wheel, "0.1.1", tmp_path, BROKEN),
        "0.1.2": asyncio.to_thread(build_wheel, "0.1.2", tmp_path, {}),
    }
    return dict(zip(work, await asyncio.gather(*work.values()), strict=True))


def canary_of(view: FleetView) -> NodeView:
    return next(node for node in view.nodes if node.name == "canary")


async def versions_of(fleet: MiniFleet, node: Node) -> dict[str, dict[str, Any]]:
    found = (await fleet.agent(node, "versions"))["versions"]
    return {each["version"]: each for each in found}


async def adopt(fleet: MiniFleet, node: Node, wheels: dict[str, Path]) -> None:
    await fleet.adopt(node, wheels["0.1.0"], wheels["deps"])
    await fleet.supervisor.stop(node.name)
    fleet.start_agent(node)
    async with asyncio.timeout(150):
        while not (node.home / "versions" / "0.1.0" / "HEALTHY").exists():
            await asyncio.sleep(0.1)


@asynccontextmanager
async def gateway_watched(node: Node) -> AsyncIterator[list[tuple[str, int, int]]]:
    """What was active, how many orders the journal knew, and the gateway's pid, again and again."""
    seen: list[tuple[str, int, int]] = []

    async def watch() -> None:
        while True:
            journal = (node.home / "journal" / "upgrade.log").read_text()
            orders = journal.count('"kind":"begin"')
            seen.append(((node.home / "active").readlink().name, orders, gateway_pid(node)))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_new_agent_a_broken_one_and_one_killed_while_it_is_built(
    ready: Ready, wheels: dict[str, Path]
) -> None:
    fleet, node = ready.fleet, ready.fleet.node("canary")
    serving = gateway_pid(node)
    await adopt(fleet, node, wheels)
    await _broken(fleet, node, wheels)
    assert gateway_pid(node) == serving
    await _killed_in_the_build(fleet, node, wheels, serving)


async def _broken(fleet: MiniFleet, node: Node, wheels: dict[str, Path]) -> None:
    """Fault 11, without an operator: back on the old agent, a red, the rollout halted, and not again."""
    bad = await fleet.freeze(OLD, name="bad-agent", agent=(wheels["0.1.1"], wheels["deps"]))
    async with gateway_watched(node) as seen:
        rollout = await fleet.set_target(bad, strategy="canary", soak_s=0)
        view = await fleet.until_ended(rollout)
        view = await until(
            fleet,
            lambda view: (
                canary_of(view).upgrade is not None
                and canary_of(view).upgrade.release == bad  # type: ignore[union-attr]
                and all_green(view, OLD)
            ),
            "the order has ended",
        )
    assert {active for active, _, _ in seen} == {"0.1.0", "0.1.1"}
    assert len({pid for _, _, pid in seen}) == 1, "the gateway was never touched"
    assert view.rollout is not None
    assert view.rollout.state == "halted"
    assert canary_of(view).agent_version == "0.1.0"
    upgrade = canary_of(view).upgrade
    assert upgrade is not None
    assert upgrade.outcome == "dropped"
    assert "agent 0.1.1 failed here: it was started 3 times" in upgrade.reason
    assert [(red.origin, red.kind) for red in view.reds if red.open] == [("canary", "agent-failed")]
    found = await versions_of(fleet, node)
    assert (found["0.1.0"]["state"], found["0.1.1"]["state"]) == ("active", "failed")
    await fleet.rollcall_agent(node, "clear", view.reds[-1].key, "--reason", "a wheel of a test")
    await until(fleet, lambda view: not any(n.frozen_by for n in view.nodes), "the freeze is over")
    starts = (node.home / "versions" / "starts.json").read_text()
    with pytest.raises(CommandError, match="failed on canary before"):
        await fleet.set_target(bad, strategy="canary", soak_s=0)
    assert (node.home / "versions" / "starts.json").read_text() == starts, "nothing was started"


async def _killed_in_the_build(
    fleet: MiniFleet, node: Node, wheels: dict[str, Path], serving: int
) -> None:
    good = await fleet.freeze(OLD, name="good-agent", agent=(wheels["0.1.2"], wheels["deps"]))
    folder = node.home / "versions" / "0.1.2"
    async with gateway_watched(node) as seen:
        await fleet.set_target(good, strategy="canary", soak_s=0)
        async with asyncio.timeout(150):
            while not (folder / "bin" / "python").exists():
                await asyncio.sleep(0.02)
        os.kill(fleet.supervisor.pid("canary") or 0, signal.SIGKILL)
        assert not (folder / "COMPLETE").exists()
        await until(
            fleet,
            lambda view: (
                canary_of(view).release == good and canary_of(view).agent_version == "0.1.2"
            ),
            "the next attempt succeeds, and the new agent moves OpenClaw",
        )
    before = min(orders for _, orders, _ in seen)
    old = {pid for _, orders, pid in seen if orders == before}
    assert old == {serving}, "until the new agent took the order nobody touched the gateway"
    assert any(active == "0.1.2" and orders == before for active, orders, _ in seen)
    view = await until(
        fleet,
        lambda view: (
            view.rollout is not None
            and any("launcher" in each.reason for each in view.rollout.nodes)
        ),
        "a node without a launcher says so",
    )
    assert view.rollout is not None
    stable = view.rollout.find("stable")
    assert stable is not None
    assert "rollcall-agent adopt" in stable.reason
    found = await versions_of(fleet, node)
    assert {version: each["state"] for version, each in found.items()} == {
        "0.1.0": "last good",
        "0.1.1": "failed",
        "0.1.2": "active",
    }
    move = json.loads((node.home / "versions" / "0.1.2" / "COMPLETE").read_text())
    assert move["version"] == "0.1.2"
