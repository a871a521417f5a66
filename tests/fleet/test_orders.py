"""Orders on real agents: done once whoever is killed, and kept back where they should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.client import Client
from scripts.minifleet.fleet import MiniFleet, Node
from shared.errors import RollcallError
from shared.failpoint import ARMED, VARIABLE
from tests.fleet.conftest import NEW, Ready
from tests.fleet.test_fleet import PATIENCE_S, gateway_pid, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
KILLS = ("order.claimed#1", "order.stopped#1", "order.done#1")
SETTLED_S = 3.0
"""Longer than an agent takes to look at its orders again."""


async def ended(fleet: MiniFleet, order: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(RollcallError):
                shown = dict(
                    json.loads(await Client(fleet.config).ask("GET", f"/v1/orders/{order}"))
                )
                if shown["order"]["ended"] is not None:
                    return shown
            await asyncio.sleep(0.3)


async def give(fleet: MiniFleet, kind: str, node: str, *words: str) -> str:
    made = await fleet.rollcall("order", "create", kind, node, *words)
    return str(made["order"]["id"])


def read_kills(folder: Path) -> list[str]:
    return (folder / ARMED).read_text().split()


async def restarted(fleet: MiniFleet, node: Node, points: Path, kill: str) -> None:
    """One restart with the agent killed at this place: the gateway has been started anew exactly once."""
    before = gateway_pid(node)
    (points / ARMED).write_text(kill)
    (points / "reached").write_text("")
    order = await give(fleet, "restart", node.name, "--reason", kill)
    shown = await ended(fleet, order)
    assert shown["order"]["state"] == "completed", (kill, shown)
    assert [each["event"] for each in shown["events"]].count("complete") == 1
    assert read_kills(points) == [], f"{kill} was not reached"
    async with asyncio.timeout(PATIENCE_S):
        while gateway_pid(node) in (0, before):
            await asyncio.sleep(0.1)
    now = gateway_pid(node)
    await asyncio.sleep(SETTLED_S)
    assert gateway_pid(node) == now, f"{kill}: restarted once more"


async def test_a_restart_is_done_once_whoever_is_killed_meanwhile(shared: Ready) -> None:
    """Faults of the agent at each write, then of the coordinator."""
    fleet = shared.fleet
    node = fleet.node("stable")
    points = fleet.root / "points"
    points.mkdir()
    fleet.agent_env[VARIABLE] = str(points)
    await fleet.supervisor.stop(node.name)
    fleet.start_agent(node)
    for kill in KILLS:
        await restarted(fleet, node, points, kill)
    before = gateway_pid(node)
    order = await give(fleet, "restart", "stable")
    os.kill(fleet.supervisor.pid("coordinator") or 0, signal.SIGKILL)
    shown = await ended(fleet, order)
    assert shown["order"]["state"] == "completed"
    assert gateway_pid(node) != before


async def test_a_frozen_node_waits_with_the_reason_and_collects_its_logs(shared: Ready) -> None:
    fleet = shared.fleet
    node = fleet.node("canary")
    before = gateway_pid(node)
    await fleet.agent(node, "freeze", "--reason", "hands off")
    order = await give(fleet, "restart", "canary", "--expires", "10m")
    view = await until(
        fleet,
        lambda view: any("hands off" in each.waiting for each in view.nodes),
        "the reason is told",
    )
    told = next(each.waiting for each in view.nodes if each.name == "canary")
    assert told.startswith(f"order {order} (restart) waits: ")
    bundle = await fleet.rollcall("node", "logs", "canary")
    assert any(each["lines"] for each in bundle["files"]), json.dumps(bundle)[:500]
    assert gateway_pid(node) == before
    await fleet.rollcall("order", "cancel", order, "--reason", "not needed")
    await fleet.agent(node, "unfreeze", "--reason", "go on")
    new = await fleet.freeze(NEW)
    rollout = await fleet.set_target(new, strategy="immediate", soak_s=0)
    await fleet.until_ended(rollout)
    events = (await fleet.rollcall("audit", "list", "--limit", "200"))["rows"]
    claims = [row["subject"] for row in events if row["action"] == "POST /v1/orders/{id}/claim"]
    for name in ("canary", "stable", "witness"):
        assert f"{rollout}:{name}" in claims
    assert order not in claims
