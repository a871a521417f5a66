"""The real gateway sick in real ways: each told from a healthy one, with a reason that a person understands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agent.openclaw.gateway import Gateway, resume, suspend
from agent.openclaw.tasks import parse_tasks
from agent.readiness.history import History
from agent.readiness.monitor import Monitor
from agent.readiness.probes.digest import DigestProbe
from agent.readiness.probes.doctor import DoctorProbe
from agent.readiness.probes.gateway import GatewayProbe
from agent.readiness.probes.p95 import P95Probe
from agent.readiness.probes.queue import QueueProbe
from agent.readiness.probes.running import RunningProbe
from agent.readiness.probes.tasks import TaskReader
from agent.readiness.probes.throughput import ThroughputProbe
from agent.readiness.reading import Probe
from agent.service.base import Pid
from scripts.minifleet.modelstub import ModelStub, provider
from scripts.minifleet.ports import free_port
from shared.clock import SystemClock
from shared.command import kill_group
from shared.readiness import Check, CheckStatus
from tests.openclaw.conftest import NEW, OLD, Home, Packages, start_gateway

pytestmark = [pytest.mark.openclaw, pytest.mark.slow]
LIMIT_S = 600
SLOW_S = 240.0
QUICK = ("gateway", "running", "queue", "digest", "throughput", "p95")
WELL = (CheckStatus.PASS, CheckStatus.WARN)
CHEAP_S = 3.0
"""More than requests over the socket take on a loaded machine, and less than one run of the CLI."""
CHANGING = {"ts", "durationMs", "eventLoop", "modelPricing", "sessions", "agents"}


@dataclass
class Sick:
    """One gateway, the probes that read it, and what they said last."""

    home: Home
    stub: ModelStub
    client: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None
    began: float = 0.0
    checks: dict[str, Check] = field(default_factory=dict)

    def __post_init__(self) -> None:
        home, clock = self.home, SystemClock()
        gateway = self.gateway = Gateway(self.client, home.port)
        tasks = TaskReader(gateway, home.openclaw, self.alive, clock, warmup_s=-60)
        probes: list[Probe] = [
            GatewayProbe(gateway, home.openclaw, 2.0, 2000),
            RunningProbe(gateway, home.openclaw, self.alive, 2.0),
            QueueProbe(gateway, home.openclaw, 15.0, 500),
            DigestProbe(gateway, home.openclaw, 15.0),
            ThroughputProbe(tasks, 15.0, 100),
            P95Probe(tasks, 15.0, 2000),
            DoctorProbe(home.openclaw, 3600.0, SLOW_S),
        ]
        self.monitor = Monitor("mac-01", probes, clock, lambda: None, history=History(), guards=[])

    async def alive(self) -> Pid | None:
        process = self.process
        return Pid(process.pid, self.began) if process and process.returncode is None else None

    async def look(self, *ids: str) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        document = await self.monitor.refresh(ids)
        self.checks = {check.id: check for check in document.checks}
        return time.monotonic() - began

    def says(self, name: str, status: CheckStatus, *words: str) -> None:
        check = self.checks[name]
        assert check.status is status, f"{name} is {check.status}: {check.reason}"
        for word in words:
            assert word in check.reason, f"{name}: {check.reason}"

    def is_well(self) -> None:
        """A warning is green: on a loaded machine the gateway's event loop is late."""
        ill = [self.checks[name] for name in QUICK if self.checks[name].status not in WELL]
        assert not ill

    async def begin(self) -> None:
        self.began = time.time()
        self.process = await start_gateway(self.home)

    async def until_healthy(self) -> None:
        async with asyncio.timeout(SLOW_S):
            while True:
                await self.look(*QUICK)
                if all(self.checks[name].status in WELL for name in QUICK):
                    return
                await asyncio.sleep(0.5)

    async def end(self) -> None:
        if self.process is not None:
            kill_group(self.process.pid)
            await self.process.wait()

    def write(self, **more: Any) -> None:
        self.home.write(**provider(self.stub.port), **more)

    async def turn(self, text: str) -> None:
        words = ("agent", "--agent", "main", "--message", text, "--json")
        output = await self.home.openclaw().run(*words, timeout_s=SLOW_S)
        assert output.code == 0, output.last_line()


@asynccontextmanager
async def a_gateway(home: Home) -> AsyncIterator[Sick]:
    async with ModelStub() as stub, aiohttp.ClientSession() as client:
        sick = Sick(home, stub, client)
        sick.write()
        try:
            yield sick
        finally:
            await sick.end()


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("version", [OLD, NEW])
async def test_each_sickness_is_told_from_health(
    packages: Packages, version: str, tmp_path: Any
) -> None:
    home = Home(packages, "real", version, tmp_path / "home", free_port())
    home.state.mkdir(parents=True)
    await asyncio.to_thread(packages.tree, "real", version)
    async with a_gateway(home) as sick:
        await sick.begin()
        await healthy(sick)
        await busy(sick)
        await config_broken_while_it_runs(sick)
        if home.is_new:
            await suspended(sick)
        await stopped_in_its_tracks(sick)
        await killed(sick)
        await port_taken(sick)
        await config_broken_at_the_start(sick)
        await database_corrupt(sick)


async def healthy(sick: Sick) -> None:
    """And what the socket says is what the CLI says."""
    await sick.until_healthy()
    assert await sick.look(*QUICK) < CHEAP_S
    assert sick.checks["running"].observed == sick.home.version
    sick.says("p95", CheckStatus.PASS, "too few")
    before = await asyncio.to_thread(traces, sick.home)
    for _ in range(3):
        await sick.look("queue", "digest", "throughput")
    assert await asyncio.to_thread(traces, sick.home) == before, "reading leaves no trace"
    openclaw, gateway = sick.home.openclaw(), sick.gateway
    assert gateway.is_cheap
    for method in ("gateway.restart.preflight", "health", "status"):
        _, cli = await openclaw.run_json("gateway", "call", method, "--json", timeout_s=SLOW_S)
        ours = (await gateway.call(openclaw, method)).value
        assert ours.keys() == cli.keys()
        if method != "status":
            assert steady(ours) == steady(cli)


def steady(value: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key not in CHANGING}


def traces(home: Home) -> dict[str, int]:
    """How much the state knows of devices, pairings and who did what."""
    path = home.state / "state" / "openclaw.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        names = [name for (name,) in database.execute("select name from sqlite_master")]
        kept = [name for name in names if re.search("^(device|node_pairing|audit)[a-z_]*$", name)]
        assert kept
        count = "select count(*) from {}".format
        return {name: database.execute(count(name)).fetchone()[0] for name in kept}


async def busy(sick: Sick) -> None:
    """Work in hand is no sickness: it is counted, and nothing turns red."""
    sick.stub.free.clear()
    turn = asyncio.create_task(sick.turn("take your time"))
    try:
        async with asyncio.timeout(SLOW_S):
            while not sick.stub.requests:
                await asyncio.sleep(0.2)
        await sick.look(*QUICK)
        assert float(sick.checks["queue"].observed or 0) >= 1
        sick.is_well()
        queue = await sick.gateway.queue(sick.home.openclaw())
        assert not queue.safe
        assert queue.blockers
    finally:
        sick.stub.free.set()
        await turn
    async with asyncio.timeout(30):
        while not sick.checks["throughput"].observed:
            await asyncio.sleep(0.5)
            await sick.look("throughput")
    await same_tasks(sick)


async def same_tasks(sick: Sick) -> None:
    openclaw = sick.home.openclaw()
    _, printed = await openclaw.run_json("tasks", "list", "--json", timeout_s=SLOW_S)
    answer = await sick.gateway.call(openclaw, "tasks.list", {"limit": 500})
    listed, cli = parse_tasks(answer.value), parse_tasks(printed)
    times = [(task.id, task.created, task.started, task.ended) for task in listed]
    assert times == [(task.id, task.created, task.started, task.ended) for task in cli]
    assert times


async def config_broken_while_it_runs(sick: Sick) -> None:
    """The gateway goes on with what it read before; Doctor says that it could not start again."""
    sick.write(rollcallDemo={"unknown": True})
    await asyncio.sleep(2)
    await sick.look("doctor")
    await sick.look(*QUICK)
    sick.says("doctor", CheckStatus.FAIL, "final-config-validation")
    sick.is_well()
    (sick.home.state / "openclaw.json").write_text("{ not even JSON5")
    assert await sick.look("queue") < CHEAP_S
    sick.says("queue", CheckStatus.PASS)
    sick.write()
    await sick.look("doctor")
    sick.says("doctor", CheckStatus.PASS)


async def suspended(sick: Sick) -> None:
    openclaw = sick.home.openclaw()
    async with asyncio.timeout(SLOW_S):
        while (held := await suspend(openclaw, "sick", wait_s=20)).id is None:
            await asyncio.sleep(1)
    assert await sick.look(*QUICK) < CHEAP_S, "the CLI would hang for 60 s"
    sick.says("gateway", CheckStatus.FAIL, "suspended")
    sick.says("queue", CheckStatus.UNKNOWN, "suspension")
    await resume(openclaw, str(held.id))
    await sick.until_healthy()


async def stopped_in_its_tracks(sick: Sick) -> None:
    """A process that hangs still has its port, and takes connections."""
    assert sick.process is not None
    os.kill(sick.process.pid, signal.SIGSTOP)
    try:
        assert await sick.look("gateway") < CHEAP_S + 3
        sick.says("gateway", CheckStatus.UNKNOWN, "hangs or is stopped")
        assert await sick.look("queue", "digest", "throughput", "p95") < 25
        sick.says("queue", CheckStatus.UNKNOWN, "15 s")
    finally:
        os.kill(sick.process.pid, signal.SIGCONT)
    await sick.until_healthy()


async def killed(sick: Sick) -> None:
    assert sick.process is not None
    kill_group(sick.process.pid)
    await sick.process.wait()
    assert await sick.look(*QUICK) < CHEAP_S
    sick.says("gateway", CheckStatus.FAIL, "nothing listens")
    sick.says("running", CheckStatus.FAIL, "not running")
    sick.says("queue", CheckStatus.UNKNOWN, "nothing listens")


async def port_taken(sick: Sick) -> None:
    """By a server that is no gateway; the gateway itself then ends at once (2026.7.35 with 0)."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", sick.home.port).start()
    try:
        await sick.begin()
        assert sick.process is not None
        async with asyncio.timeout(SLOW_S):
            await sick.process.wait()
        await sick.look("gateway", "running")
        sick.says("gateway", CheckStatus.UNKNOWN, "no OpenClaw")
        sick.says("running", CheckStatus.FAIL, "not running")
    finally:
        await runner.cleanup()


async def config_broken_at_the_start(sick: Sick) -> None:
    sick.write(gateway={"mode": "local", "port": "twelve"})
    await ends_with(sick, {78})
    await sick.look("doctor")
    await sick.look("gateway", "running")
    sick.says("gateway", CheckStatus.FAIL, "nothing listens")
    sick.says("running", CheckStatus.FAIL, "not running")
    sick.says("doctor", CheckStatus.FAIL, "final-config-validation")
    sick.write()


async def database_corrupt(sick: Sick) -> None:
    for path in (sick.home.state / "state").glob("openclaw.sqlite*"):
        path.write_bytes(b"this is no database" * 1000)
    await ends_with(sick, {1, 78})
    await sick.look("doctor")
    await sick.look("gateway", "running")
    sick.says("running", CheckStatus.FAIL, "not running")
    sick.says("doctor", CheckStatus.FAIL)
    reason = sick.checks["doctor"].reason
    assert "database" in reason, reason


async def ends_with(sick: Sick, codes: set[int]) -> None:
    await sick.begin()
    assert sick.process is not None
    async with asyncio.timeout(SLOW_S):
        assert await sick.process.wait() in codes
