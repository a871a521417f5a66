"""Three agents whose gateways are jobs of one emulated launchd: a rollout, kills, and a way back."""

from __future__ import annotations

import asyncio
import os
import plistlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from agent.service.printed import read_job
from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.workspace import Workspace
from shared.rollout import FleetView
from shared.roster import Role
from tests.fleet.conftest import NEW, OLD
from tests.support.launchd.emulator import Launchd, emulated_launchd

PATIENCE_S = 150.0


class MacWorkspace(Workspace):
    """Where `launchctl` is found first."""

    def __init__(self, launchd: Launchd) -> None:
        super().__init__()
        self._bin = launchd.launchctl.parent

    def environment(self) -> dict[str, str]:
        env = super().environment()
        return {**env, "PATH": f"{self._bin}:{env['PATH']}"}


@dataclass
class MacFleet:
    fleet: MiniFleet
    launchd: Launchd

    def target(self, name: str) -> str:
        return f"gui/{os.geteuid()}/{label(name)}"

    def pid(self, name: str) -> int | None:
        job = read_job(self.launchd.run("print", self.target(name)).stdout)
        return job.pid if job is not None else None

    def plist(self, name: str) -> Path:
        home = self.fleet.node(name).gateway_home
        return home / "Library" / "LaunchAgents" / f"{label(name)}.plist"

    async def until(self, version: str, *names: str) -> FleetView:
        generation = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                view = await self.fleet.watch(generation)
                generation = view.generation
                wanted = [node for node in view.nodes if not names or node.name in names]
                if all((n.status, n.version_running) == ("green", version) for n in wanted):
                    return view

    async def until_another(self, name: str, before: int | None) -> int:
        async with asyncio.timeout(PATIENCE_S):
            while (now := self.pid(name)) in (None, before):
                await asyncio.sleep(0.1)
        assert now is not None
        return now


def label(name: str) -> str:
    return f"io.rollcall.gateway-{name}"


def service_of(node: Node) -> str:
    (node.gateway_home / "Library").mkdir(parents=True)
    return f"""
[service]
kind = "launchd"
label = "{label(node.name)}"
domain = "gui/{os.geteuid()}"
"""


@pytest.fixture
async def mac() -> AsyncIterator[MacFleet]:
    with emulated_launchd(throttle_scale=0.05, linger_s=0.5, bootout_code=36) as launchd:
        fleet = MiniFleet(MacWorkspace(launchd), STANDIN, standin=True, mdns=False)
        for node in fleet.nodes:
            node.extra = service_of(node)
        try:
            await fleet.open()
            await fleet.install(OLD)
            yield MacFleet(fleet, launchd)
        finally:
            await fleet.close()


@pytest.mark.timeout(420)
async def test_gateways_of_launchd_move_survive_and_go_back(mac: MacFleet) -> None:
    fleet = mac.fleet
    before = {node.name: mac.pid(node.name) for node in fleet.nodes}
    plists = {name: mac.plist(name).read_bytes() for name in before}
    assert all(before.values())
    for name, raw in plists.items():
        argv = plistlib.loads(raw)["ProgramArguments"]
        assert str(fleet.node(name).home / "current") in argv[1], "an upgrade changes a link only"

    killed = before["stable"]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    respawned = await mac.until_another("stable", killed)
    await mac.until(OLD)
    agent = fleet.supervisor.pid("canary")
    assert agent is not None
    os.kill(agent, signal.SIGKILL)
    await mac.until(OLD)
    assert mac.pid("canary") == before["canary"], "an agent's death is not its gateway's"

    new = await fleet.freeze(NEW)
    moved = await fleet.set_target(new, strategy="immediate", soak_s=0)
    view = await fleet.until_ended(moved)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    await mac.until(NEW)
    after = {name: mac.pid(name) for name in before}
    assert not set(after.values()) & {*before.values(), respawned}
    assert {name: mac.plist(name).read_bytes() for name in before} == plists

    fleet.packages = fleet.root / "worse"
    fleet.packages.mkdir()
    bad = await break_release(fleet.npm, Role.WITNESS, How.READY, fleet.packages)
    worse = await fleet.freeze(NEW, name=f"{NEW}-bad", breakage=bad)
    ended = await fleet.until_ended(await fleet.set_target(worse, strategy="immediate", soak_s=0))
    assert ended.rollout is not None
    assert ended.rollout.state != "succeeded"
    await mac.until(NEW, "witness")
    back = mac.pid("witness")
    assert back not in (None, after["witness"])
    assert psutil.pid_exists(back or 0)
    assert any(call.startswith(f"disable {mac.target('witness')}") for call in mac.launchd.calls())
