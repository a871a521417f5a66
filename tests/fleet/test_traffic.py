"""Shares of traffic, measured at the real HAProxy under load. The tests share the fleet and run in this order."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from scripts.debian import need
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.ports import free_port
from scripts.minifleet.workspace import Workspace
from tests.fleet.conftest import NEW, OLD
from tests.support.haproxykit import AGENT, INTER_S, LATE_S, HAProxy, Load

pytestmark = pytest.mark.asyncio(loop_scope="module")
log = logging.getLogger(__name__)
STEPS, STEP_FOR_S = (10, 40, 100), 3.0
PATIENCE_S = 150.0


@dataclass
class Stand:
    fleet: MiniFleet
    new: str
    balancer: HAProxy
    rollout: str = ""

    async def shares(self) -> dict[str, dict[str, Any]]:
        view = await self.fleet.rollcall("traffic", "show")
        return {each["node"]: each for each in view["nodes"]}

    async def say(self, *words: str) -> dict[str, Any]:
        return await self.fleet.rollcall("traffic", *words, "--reason", "a test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    await asyncio.to_thread(need, "haproxy", "haproxy")
    fleet = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False)
    balancer: HAProxy | None = None
    try:
        for node in fleet.nodes:
            node.agent_check_port = free_port()
        await fleet.open()
        await fleet.install(OLD)
        await fleet.rollcall("config", "set", "steps", ",".join(map(str, STEPS)))
        await fleet.rollcall("config", "set", "step_for", f"{STEP_FOR_S:.0f}s")
        new = await fleet.freeze(NEW)
        balancer = HAProxy(fleet.root, "traffic", fleet.nodes)
        await balancer.start(fleet.workspace.environment())
        for node in fleet.nodes:
            await balancer.until(node.name, status="no check", weight="100")
        yield Stand(fleet, new, balancer)
    finally:
        if balancer is not None:
            await balancer.stop()
        await fleet.close()


Changes = list[tuple[int, float]]
"""A weight, and when it was first seen (monotonic seconds)."""


@dataclass
class Timeline:
    """What a node said, and what HAProxy had, one after the other."""

    said: Changes = field(default_factory=list)
    had: Changes = field(default_factory=list)


@asynccontextmanager
async def watching(stand: Stand, node: Node) -> AsyncIterator[Timeline]:
    found, over = Timeline(), asyncio.Event()

    def note(changes: Changes, percent: int) -> None:
        if not changes or changes[-1][0] != percent:
            changes.append((percent, time.monotonic()))

    async def look() -> None:
        while not over.is_set():
            note(found.said, json.loads((node.home / "traffic.json").read_text())["percent"])
            note(found.had, int((await stand.balancer.stat(node.name))["weight"]))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(look())
    try:
        yield found
    finally:
        over.set()
        await task


async def measured(stand: Stand, node: str, seconds: float) -> float:
    """Which share of the requests this node was given."""
    async with Load(stand.balancer.url(AGENT), pause_s=0.005) as load:
        await asyncio.sleep(seconds)
    assert load.failed == []
    return load.served[node] / sum(load.served.values())


async def test_ratios_follow_the_steps_and_a_freeze_holds_them(stand: Stand) -> None:
    """The canary soaks all the while, so the others take their full share."""
    fleet, balancer, canary = stand.fleet, stand.balancer, stand.fleet.node("canary")
    (canary.home / "traffic.json").write_text(json.dumps({"percent": 100}))
    load = Load(balancer.url(AGENT), pause_s=0.02)
    async with load, watching(stand, canary) as seen:
        stand.rollout = await fleet.set_target(stand.new, strategy="canary", soak_s=35)
        await balancer.until("canary", weight="0", timeout_s=PATIENCE_S)
        await balancer.until("canary", weight="40", timeout_s=PATIENCE_S)
        await stand.say("freeze")
        share = await measured(stand, "canary", 2 * STEP_FOR_S)
        assert share == pytest.approx(40 / 240, abs=0.02)
        assert (await balancer.stat("canary"))["weight"] == "40"
        assert "froze all ratios" in (await stand.shares())["canary"]["waits"]
        thawed = time.monotonic()
        await stand.say("unfreeze")
        await balancer.until("canary", weight="100", timeout_s=PATIENCE_S)
        await asyncio.sleep(INTER_S)
    assert load.failed == []
    assert [percent for percent, _ in seen.said] == [100, 0, *STEPS]
    assert [percent for percent, _ in seen.had] == [100, 0, *STEPS]
    said, had = dict(seen.said[1:]), dict(seen.had[1:])
    lags = {percent: round(had[percent] - said[percent], 2) for percent in STEPS}
    log.info("HAProxy had each weight after %s s; %d requests", lags, sum(load.served.values()))
    assert max(lags.values()) <= INTER_S + LATE_S
    assert said[40] - said[10] >= STEP_FOR_S, "each step is watched for its time"
    assert said[100] - thawed >= STEP_FOR_S, "and anew after a freeze"


async def test_a_rollback_puts_share_and_release_back_together(stand: Stand) -> None:
    """In the middle of the steps, and while all ratios are frozen: going back is never kept."""
    fleet, balancer, stable = stand.fleet, stand.balancer, stand.fleet.node("stable")
    load = Load(balancer.url(AGENT), pause_s=0.02)
    async with load:
        await balancer.until("stable", weight="0", timeout_s=PATIENCE_S)
        await balancer.until("stable", weight="10", timeout_s=PATIENCE_S)
        await stand.say("freeze")
        report = await fleet.agent(stable, "rollback", "--reason", "a test")
        assert (report["version_running"], report["weight"]) == (OLD, 100)
        await balancer.until("stable", weight="100", timeout_s=INTER_S + LATE_S)
        await asyncio.sleep(2)
    assert load.failed == []
    assert load.served["stable"] > 10, "it took traffic all the while"
    view = await fleet.until_ended(stand.rollout)
    assert view.rollout is not None
    assert view.rollout.state == "halted"
    shares = await stand.shares()
    assert (shares["stable"]["desired"], shares["stable"]["actual"]) == (100, 100)
    assert shares["stable"]["reason"] == "went back together with its release"
    await stand.say("unfreeze")
    reds = (await fleet.rollcall("red", "list"))["reds"]
    for red in reds:
        await fleet.rollcall_agent(stable, "clear", red["key"], "--reason", "a test")
    log.info("cleared %s", [red["key"] for red in reds])


async def test_a_snapshot_is_beside_every_wave_and_can_be_restored(stand: Stand) -> None:
    names = [
        each["name"] for each in (await stand.fleet.rollcall("traffic", "snapshots"))["snapshots"]
    ]
    assert names[:2] == [f"{stand.rollout}-wave-2", f"{stand.rollout}-start"]
    second = await stand.fleet.rollcall("traffic", "snapshots", names[0])
    saved = {each["node"]: each for each in second["nodes"]}
    assert saved["canary"]["release"] == stand.new
    assert saved["witness"]["release"] != stand.new
    await stand.fleet.rollcall("traffic", "snapshot", "quiet-evening")
    await stand.say("set", "witness", "30")
    await stand.balancer.until("witness", weight="30", timeout_s=PATIENCE_S)
    tried = await stand.say("restore", "quiet-evening", "--dry-run")
    assert [(each["node"], each["now"], each["then"]) for each in tried["differences"]] == [
        ("witness", 30, 100)
    ]
    assert (await stand.balancer.stat("witness"))["weight"] == "30"
    await stand.say("restore", "quiet-evening")
    await stand.balancer.until("witness", weight="100", timeout_s=PATIENCE_S)


async def test_no_share_is_raised_without_a_word_of_every_peer(stand: Stand) -> None:
    """Lowered at once; raised only when the stable node's agent is there again to look. Nothing moves while the
    coordinator is away."""
    fleet, balancer = stand.fleet, stand.balancer
    await fleet.supervisor.stop("stable")
    before = time.monotonic()
    await stand.say("set", "canary", "40")
    await balancer.until("canary", weight="40", timeout_s=PATIENCE_S)
    log.info("lowered %.1f s after the command began", time.monotonic() - before)
    await stand.say("set", "canary", "--auto")
    await asyncio.sleep(3 * STEP_FOR_S)
    shares = await stand.shares()
    assert f"its rollout {stand.rollout} is halted" in shares["canary"]["waits"]
    await stand.say("set", "canary", "100")
    async with asyncio.timeout(PATIENCE_S):
        while "stable: no answer" not in (await stand.shares())["canary"]["waits"]:
            await asyncio.sleep(1)
    shares = await stand.shares()
    assert shares["canary"]["actual"] == 40
    log.info("waits: %s", shares["canary"]["waits"])
    await fleet.supervisor.stop("coordinator")
    fleet.start_agent(fleet.node("stable"))
    await asyncio.sleep(3 * STEP_FOR_S)
    assert (await balancer.stat("canary"))["weight"] == "40"
    fleet.start_coordinator()
    await balancer.until("canary", weight="100", timeout_s=PATIENCE_S)
    said = await fleet.rollcall("traffic", "history")
    assert [(each["node"], each["percent"]) for each in said["history"][:3]] == [
        ("canary", 100),
        ("canary", 40),
        ("canary", 40),
    ], "given back, it stays where it was"


async def test_an_undo_takes_share_and_release_back_together(stand: Stand) -> None:
    """The rollout that was halted is undone; nothing of its steps is left."""
    fleet, balancer = stand.fleet, stand.balancer
    await stand.say("set", "canary", "--auto")
    async with Load(balancer.url(AGENT), pause_s=0.02) as load:
        undone = await fleet.rollcall("rollout", "undo", "--yes")
        await balancer.until("canary", weight="0", timeout_s=PATIENCE_S)
        view = await asyncio.wait_for(fleet.until_ended(undone["id"]), PATIENCE_S)
        assert view.rollout is not None
        assert view.rollout.state == "succeeded", view.rollout.reason
        await balancer.until("canary", weight="100", timeout_s=INTER_S + LATE_S)
    assert load.failed == []
    assert all(node.version_running == OLD for node in view.nodes)
    canary = (await stand.shares())["canary"]
    assert (canary["desired"], canary["actual"]) == (100, 100)
