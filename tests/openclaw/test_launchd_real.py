"""OpenClaw's own launchd code and ours, on one emulated launchd: OpenClaw installs its LaunchAgent and handles
it, then our driver does. Node is told that it runs on a Mac; a real launchd is not part of this."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.openclaw.gateway import Gate, Gateway
from agent.service.base import ServiceSpec
from agent.service.launchctl import Launchctl, Target
from agent.service.launchd import LaunchdJob, LaunchdSupervisor
from agent.service.supervised import SupervisedService
from agent.service.wrapper import wrapper_script
from scripts.minifleet.ports import free_port
from shared.clock import SystemClock
from shared.http import session
from tests.openclaw.conftest import NEW, OLD, Packages
from tests.support.launchd.emulator import Launchd, emulated_launchd

pytestmark = [pytest.mark.openclaw, pytest.mark.slow, pytest.mark.timeout(900)]

PRELOAD = Path(__file__).resolve().parents[1] / "support" / "launchd" / "darwin-preload.mjs"
LABEL = "ai.openclaw.gateway"
READY_S = 240
OUTSIDE_TMP = Path("/var/tmp")
"""OpenClaw repairs a plist that leads to a temporary path, at every restart."""


@dataclass
class Mac:
    """A home with one release behind `current`, and what OpenClaw and our driver do to its gateway."""

    launchd: Launchd
    packages: Packages
    version: str
    port: int

    @property
    def home(self) -> Path:
        return self.launchd.folder / "home"

    @property
    def current(self) -> Path:
        return self.launchd.folder / "current"

    @property
    def plist(self) -> Path:
        return self.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    def environment(self) -> dict[str, str]:
        node = self.packages.tools.node.parent
        return {
            "HOME": str(self.home),
            "PATH": f"{self.launchd.launchctl.parent}:{node}:/usr/bin:/bin",
            "NODE_OPTIONS": f"--import {PRELOAD}",
            "OPENCLAW_NO_AUTO_UPDATE": "1",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }

    def prepare(self) -> None:
        (self.home / ".openclaw").mkdir(parents=True)
        self.current.symlink_to(self.packages.tree("real", self.version))
        config = {
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": "a-token-for-tests-only-0123456789"},
            },
            "agents": {"defaults": {"heartbeat": {"every": "0m"}}},
        }
        (self.home / ".openclaw" / "openclaw.json").write_text(json.dumps(config))
        wrapper = self.launchd.folder / "gateway"
        node = self.packages.tools.node
        wrapper.write_bytes(wrapper_script(node, self.current, self.environment()))
        wrapper.chmod(0o755)

    def openclaw(self, *words: str) -> str:
        """OpenClaw's own command, as its user would give it. Fails the test when it fails."""
        entry = self.current / "node_modules" / ".bin" / "openclaw"
        done = subprocess.run(
            [str(self.packages.tools.node), str(entry), *words],
            env=self.environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def install(self) -> None:
        wrapper = str(self.launchd.folder / "gateway")
        self.openclaw("gateway", "install", "--force", "--wrapper", wrapper)

    async def driver(self) -> SupervisedService:
        job = LaunchdJob(
            Target(f"gui/{os.getuid()}", LABEL), self.plist, self.launchd.folder / "logs"
        )
        clock = SystemClock()
        supervisor = LaunchdSupervisor(job, Launchctl(self.launchd.launchctl), clock)
        service = SupervisedService(self.launchd.folder, supervisor, clock, lambda: None)
        await service.load()
        return service

    def spec(self) -> ServiceSpec:
        return ServiceSpec(("not", "used"), {}, self.home, self.home / "gateway.log")

    async def until(self, gate: Gate) -> None:
        ends = time.monotonic() + READY_S
        async with session(per_host=1) as client:
            gateway = Gateway(client, self.port)
            while (reading := await gateway.readyz()).gate is not gate:
                assert time.monotonic() < ends, f"{reading}: {self.launchd.log()[-2000:]}"
                await asyncio.sleep(0.3)

    def changes(self) -> list[str]:
        return [line.rpartition(" -> ")[0].partition(" ")[0] for line in self.launchd.calls()]


@pytest.fixture(params=[OLD, NEW])
def mac(request: pytest.FixtureRequest, packages: Packages) -> Iterator[Mac]:
    with emulated_launchd(OUTSIDE_TMP, throttle_scale=0.1) as launchd:
        made = Mac(launchd, packages, request.param, free_port())
        made.prepare()
        yield made


async def test_openclaw_installs_it_and_we_stop_and_start_it(mac: Mac) -> None:
    """The very job that `gateway install --force --wrapper` made; its plist stays as OpenClaw wrote it."""
    mac.install()
    await mac.until(Gate.READY)
    written = mac.plist.read_bytes()
    assert str(mac.launchd.folder / "gateway").encode() in written
    assert b"node_modules" not in written, "an upgrade must not need another plist"
    status: dict[str, Any] = json.loads(mac.openclaw("gateway", "status", "--json"))
    service = await mac.driver()
    first = await service.alive()
    assert first is not None
    assert status["service"]["loaded"] is True
    assert status["service"]["runtime"]["pid"] == first.pid, "OpenClaw reads the same job"
    assert await service.start(mac.spec()) == first, "what runs is taken over, not restarted"
    await service.stop(60)
    assert not psutil.pid_exists(first.pid)
    await mac.until(Gate.DOWN)
    second = await service.start(mac.spec())
    assert second != first
    await mac.until(Gate.READY)
    assert await service.alive() == second
    assert mac.plist.read_bytes() == written


async def test_openclaws_own_commands_and_ours_do_not_get_in_each_others_way(mac: Mac) -> None:
    mac.install()
    await mac.until(Gate.READY)
    service = await mac.driver()
    first = await service.start(mac.spec())
    mac.openclaw("gateway", "restart")
    await mac.until(Gate.READY)
    second = await service.alive()
    assert second is not None
    assert second != first, "we see the process that OpenClaw started"
    mac.openclaw("gateway", "stop", *(["--force"] if mac.version == NEW else []))
    assert await service.alive() is None
    assert await service.start(mac.spec()) not in (first, second)
    await mac.until(Gate.READY)
    await service.stop(60)
    mac.openclaw("gateway", "start")
    await mac.until(Gate.READY)
    third = await service.alive()
    assert third is not None
    assert await service.start(mac.spec()) != third, "it may be older than the switch of the tree"


@pytest.mark.parametrize("mac", [NEW], indirect=True)
async def test_a_start_that_openclaw_refused_leaves_it_disabled_and_ours_succeeds(mac: Mac) -> None:
    """Law 8: a newer state schema makes OpenClaw run `launchctl disable` and `bootout` on itself."""
    mac.install()
    await mac.until(Gate.READY)
    service = await mac.driver()
    await service.start(mac.spec())
    await service.stop(60)
    database = mac.home / ".openclaw" / "state" / "openclaw.sqlite"
    with sqlite3.connect(database) as state:
        (schema,) = state.execute("PRAGMA user_version").fetchone()
        state.execute(f"PRAGMA user_version = {schema + 50}")
    state.close()
    before = len(mac.changes())
    await service.start(mac.spec())
    async with asyncio.timeout(READY_S):
        while mac.changes()[before:][-2:] != ["disable", "bootout"]:
            await asyncio.sleep(0.3)
        while await service.alive() is not None:
            await asyncio.sleep(0.3)
    assert mac.launchd.run("bootstrap", f"gui/{os.getuid()}", str(mac.plist)).returncode == 5
    with sqlite3.connect(database) as state:
        state.execute(f"PRAGMA user_version = {schema}")
    state.close()
    await service.start(mac.spec())
    await mac.until(Gate.READY)
