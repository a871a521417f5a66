"""Three nodes behind the real HAProxy, under load. The tests share the fleet and run in this order.

HAProxy asks every 500 ms; see tests/support/haproxykit.py for what it is told not to do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from scripts.debian import need
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.ports import free_port
from scripts.minifleet.workspace import Workspace
from tests.fleet.conftest import NEW, OLD
from tests.support.haproxykit import AGENT, INTER_S, LATE_S, PLAIN, HAProxy, Load

pytestmark = pytest.mark.asyncio(loop_scope="module")
log = logging.getLogger(__name__)
PATIENCE_S = 150.0
ENOUGH = 400
"""Requests to measure shares by."""
HOOK = """\
#!/bin/sh
cat >> "$1"
echo >> "$1"
"""


@dataclass
class Stand:
    """A fleet on the old release, and two load balancers in front of it."""

    fleet: MiniFleet
    old: str
    new: str
    first: HAProxy
    second: HAProxy

    def told(self, node: Node) -> list[dict[str, object]]:
        """What the freeze hook of a node was given."""
        path = self.fleet.root / f"{node.name}.told"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand() -> AsyncIterator[Stand]:
    await asyncio.to_thread(need, "haproxy", "haproxy")
    fleet = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False)
    balancers: list[HAProxy] = []
    try:
        hook = fleet.root / "hook"
        hook.write_text(HOOK)
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
        for node in fleet.nodes:
            node.agent_check_port = free_port()
            told = fleet.root / f"{node.name}.told"
            node.extra = f'drain_timeout = "8s"\n[hooks]\nfreeze = ["{hook}", "{told}"]\n'
        await fleet.open()
        old, new = await fleet.freeze(OLD), await fleet.freeze(NEW)
        await fleet.until_found()
        view = await fleet.until_ended(await fleet.set_target(old, strategy="immediate", soak_s=0))
        assert view.rollout is not None
        assert view.rollout.state == "succeeded", view.rollout.reason
        await fleet.rollcall("config", "set", "step_for", "1s")
        for name in ("first", "second"):
            balancers.append(HAProxy(fleet.root, name, fleet.nodes))
            await balancers[-1].start(fleet.workspace.environment())
        yield Stand(fleet, old, new, *balancers)
    finally:
        for balancer in balancers:
            await balancer.stop()
        await fleet.close()


async def set_weight(stand: Stand, node: Node, word: str) -> None:
    await stand.fleet.rollcall("traffic", "set", node.name, word, "--reason", "a test")


async def until_up(balancer: HAProxy, node: Node, backend: str = AGENT) -> None:
    status = "no check" if backend == AGENT else "UP"
    await balancer.until(node.name, backend, status=status, weight="100")


async def test_weights_are_shares_of_the_traffic(stand: Stand) -> None:
    witness = stand.fleet.node("witness")
    await set_weight(stand, witness, "25")
    try:
        await stand.first.until("witness", weight="25")
        async with Load(stand.first.url(AGENT), pause_s=0.005) as load:
            async with asyncio.timeout(PATIENCE_S):
                while sum(load.served.values()) < ENOUGH:
                    await asyncio.sleep(0.1)
    finally:
        await set_weight(stand, witness, "100")
    asked = sum(load.served.values())
    shares = {name: round(count / asked, 3) for name, count in sorted(load.served.items())}
    log.info("%d requests, shares %s", asked, shares)
    assert load.failed == []
    assert shares["witness"] == pytest.approx(25 / 225, abs=0.02)
    assert shares["canary"] == pytest.approx(100 / 225, abs=0.02)
    await until_up(stand.first, witness)
    await set_weight(stand, witness, "--auto")


async def test_a_drained_node_gets_nothing_new_and_an_operators_maint_stays(stand: Stand) -> None:
    """The first HAProxy has the canary in maintenance before the drain, the second not at all. The agent is
    killed while drained."""
    fleet, canary = stand.fleet, stand.fleet.node("canary")
    await stand.first.say(f"set server {AGENT}/canary state maint")
    busy = canary.gateway_home / ".openclaw" / "busy"
    busy.write_text("answering alice")
    try:
        async with Load(stand.second.url(AGENT), pause_s=0.01) as load:
            rollout = await fleet.set_target(stand.new, strategy="canary", soak_s=0)
            await _until_drained(canary)
            drained = time.monotonic()
            await stand.second.until("canary", weight="0")
            log.info("drained at HAProxy after %.2f s", time.monotonic() - drained)
            assert time.monotonic() - drained <= INTER_S + LATE_S
            await asyncio.sleep(0.1)
            before = load.served["canary"]
            os.kill(fleet.supervisor.pid("canary") or 0, signal.SIGKILL)
            await asyncio.sleep(3)
            assert load.served["canary"] == before
            assert load.served["stable"] > 0
            await asyncio.wait_for(fleet.until_ended(rollout), PATIENCE_S)
        assert load.failed == []
    finally:
        busy.unlink()
    await until_up(stand.second, canary)
    async with Load(stand.second.url(AGENT)) as load:
        await asyncio.sleep(1)
    assert load.served["canary"] > 0, "it has traffic again"
    assert load.failed == []
    await fleet.supervisor.stop("canary")
    fleet.start_agent(canary)
    await fleet.until_found()
    await asyncio.sleep(3 * INTER_S)
    assert (await stand.first.stat("canary"))["status"] == "MAINT"
    await stand.first.say(f"set server {AGENT}/canary state ready")
    await until_up(stand.first, canary)


async def _until_drained(node: Node) -> None:
    async with asyncio.timeout(PATIENCE_S):
        path = node.home / "traffic.json"
        while not path.exists() or json.loads(path.read_text())["percent"] != 0:
            await asyncio.sleep(0.01)


async def test_a_restart_takes_no_traffic_until_peers_have_looked_at_the_new_process(
    stand: Stand,
) -> None:
    """It takes half of its share by an operator's word, and does so afterwards; nothing while it has work in hand."""
    fleet, stable = stand.fleet, stand.fleet.node("stable")
    await until_up(stand.first, stable)
    await set_weight(stand, stable, "50")
    await stand.first.until("stable", weight="50")
    busy = stable.gateway_home / ".openclaw" / "busy"
    busy.write_text("answering alice")
    try:
        async with Load(stand.first.url(AGENT), pause_s=0.01) as load:
            made = await fleet.rollcall("order", "create", "restart", "stable")
            await stand.first.until("stable", weight="0")
            await asyncio.sleep(0.1)
            before = load.served["stable"]
            await asyncio.sleep(3)
            assert (await stand.first.stat("stable"))["weight"] == "0"
            assert load.served["stable"] == before, "drained is drained, whatever share is wanted"
            busy.unlink()
            await stand.first.until("stable", weight="50", timeout_s=PATIENCE_S)
            await asyncio.sleep(1)
        assert load.failed == []
        assert load.served["stable"] > before
    finally:
        busy.unlink(missing_ok=True)
        await set_weight(stand, stable, "100")
    shown = await fleet.rollcall("order", "show", made["order"]["id"])
    assert shown["order"]["state"] == "completed"
    await until_up(stand.first, stable)
    await set_weight(stand, stable, "--auto")


async def test_no_request_fails_over_a_whole_rollout_and_a_rollback(stand: Stand) -> None:
    """Through `agent-check` and through `/readyz` at the same time; an operator's `maint` at the other HAProxy
    stays all the while."""
    fleet = stand.fleet
    for node in fleet.nodes:
        await until_up(stand.first, node)
        await until_up(stand.first, node, PLAIN)
    await stand.second.say(f"set server {AGENT}/stable state maint")
    by_agent, by_readyz = Load(stand.first.url(AGENT)), Load(stand.first.url(PLAIN))
    async with by_agent, by_readyz:
        await asyncio.sleep(1)
        rollout = await fleet.set_target(stand.new, strategy="rolling", soak_s=1)
        view = await asyncio.wait_for(fleet.until_ended(rollout), 2 * PATIENCE_S)
        assert view.rollout is not None
        assert view.rollout.state == "succeeded", view.rollout.reason
        assert all(node.version_running == NEW for node in view.nodes)
        await until_up(stand.first, fleet.node("witness"))
        rolled = sum(by_agent.served.values())
        report = await fleet.agent(fleet.node("canary"), "rollback")
        assert report["version_running"] == OLD
        await asyncio.sleep(1)
    log.info(
        "%d in the rollout; %s by agent-check, %s by /readyz",
        rolled,
        by_agent.served,
        by_readyz.served,
    )
    assert (by_agent.failed, by_readyz.failed) == ([], [])
    assert rolled > 100
    assert min(by_agent.served[node.name] for node in fleet.nodes) > 10
    assert (await stand.second.stat("stable"))["status"] == "MAINT"
    await stand.second.say(f"set server {AGENT}/stable state ready")


async def test_a_gateway_that_hangs_is_down_with_its_reason_and_comes_back(stand: Stand) -> None:
    """Nobody knows what it does: unknown is not green."""
    stable = stand.fleet.node("stable")
    await until_up(stand.first, stable)
    pid = int(json.loads((stable.home / "service" / "gateway.json").read_text())["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        took = await stand.first.until("stable", status="DOWN (agent)")
        reason = (await stand.first.stat("stable"))["last_agt"]
        log.info("down after %.1f s: %s", took, reason)
        assert reason.startswith("via agent : down (gateway: ")
        async with Load(stand.first.url(AGENT)) as load:
            await asyncio.sleep(1)
        assert (load.failed, load.served["stable"]) == ([], 0)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_up(stand.first, stable)


async def test_a_red_node_is_out_everywhere_and_each_node_s_hook_hears_of_it_once(
    stand: Stand,
) -> None:
    """The canary is the only one on the old release; its tree changes under it."""
    fleet, canary = stand.fleet, stand.fleet.node("canary")
    await until_up(stand.first, canary)
    known = {key for node in fleet.nodes for key in _keys(stand, node)}
    package = fleet.root / "store" / stand.old / "node_modules" / "openclaw" / "package.json"
    as_it_was = package.read_text()
    package.write_text(as_it_was.replace(f'"version": "{OLD}"', '"version": "2026.7.34"'))
    try:
        for balancer in (stand.first, stand.second):
            await balancer.until("canary", status="DOWN (agent)")
            reason = (await balancer.stat("canary"))["last_agt"]
            assert reason.startswith("via agent : down (tree: ")
        log.info("red: %s", reason)
        async with asyncio.timeout(PATIENCE_S):
            while any(len(_keys(stand, node) - known) != 1 for node in fleet.nodes):
                await asyncio.sleep(0.1)
        await fleet.supervisor.stop("witness")
        fleet.start_agent(fleet.node("witness"))
        await fleet.until_found()
        await asyncio.sleep(1)
    finally:
        package.write_text(as_it_was)
    for node in fleet.nodes:
        told = [each for each in stand.told(node) if each["key"] not in known]
        assert len(told) == 1, "once, over a restart of the witness's agent too"
        assert (told[0]["origin"], told[0]["kind"]) == ("canary", "readiness")
        assert told[0]["own"] == (node is canary)
        assert str(told[0]["reason"]).startswith("tree: ")
    await until_up(stand.first, canary)


def _keys(stand: Stand, node: Node) -> set[object]:
    return {each["key"] for each in stand.told(node)}


async def test_status_names_who_asks_and_what_they_were_told(stand: Stand) -> None:
    report = await stand.fleet.agent(stand.fleet.node("witness"), "status")
    assert {(each["address"], each["via"], each["told"]) for each in report["balancers"]} == {
        ("127.0.0.1", "agent-check", "up 100%"),
        ("127.0.0.1", "readyz", "200"),
    }
    said = (await stand.fleet.rollcall_agent(stand.fleet.node("witness"), "status")).decode()
    assert "asked by  127.0.0.1 (agent-check), last at " in said
