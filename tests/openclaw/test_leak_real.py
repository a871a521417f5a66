"""The leak guard on the real gateway: a plugin of ours that leaks 1 MiB/s, and a healthy one under load."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.openclaw.gateway import Gate, Gateway
from agent.readiness.footprint import FamilyMeter
from agent.readiness.guards.leak import LeakGuard, LeakLimits
from agent.readiness.history import History
from agent.readiness.probes.memory import MemoryProbe
from agent.service.base import Pid
from scripts.minifleet.modelstub import WITH_TURNS, ModelStub, provider, take_turns
from scripts.minifleet.ports import free_port
from shared.command import kill_group
from shared.readiness import Check, CheckStatus
from tests.openclaw.conftest import NEW, Home, Packages, start_gateway

pytestmark = [pytest.mark.openclaw, pytest.mark.slow]
MIB = 1 << 20
PLUGIN = Path(__file__).resolve().parents[1] / "support" / "plugins" / "slow-leak"
LIMITS = LeakLimits(ceiling=4096 * MIB, warmup_s=90, window_s=150, horizon_s=7200)
EVERY_S, READY_S = 5.0, 180.0
TOKEN = "a-token-for-tests-only-0123456789"
QUARTER_S = 1024
"""A leak of 1 MiB/s has used a quarter of 4 GiB by then."""
HEALTHY_S = 660


@pytest.fixture
def real(packages: Packages, tmp_path: Path) -> Home:
    made = Home(packages, "real", NEW, tmp_path / "home", free_port())
    made.state.mkdir(parents=True)
    made.openclaw()
    return made


@asynccontextmanager
async def serving(home: Home) -> AsyncIterator[tuple[Gateway, Pid]]:
    process = await start_gateway(home)
    began = time.time()
    try:
        async with aiohttp.ClientSession() as client, asyncio.timeout(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + READY_S)
            gateway = Gateway(client, home.port)
            while (await gateway.readyz()).gate is not Gate.READY:
                await asyncio.sleep(0.5)
            limit.reschedule(None)
            yield gateway, Pid(process.pid, began)
    finally:
        kill_group(process.pid)
        await process.wait()


async def watch(
    home: Home, pid: Pid, seconds: float, until: Callable[[Check], bool]
) -> tuple[float, Check]:
    """The probe's readings to the guard, as the agent does it. Seconds since the start, and the last word."""

    async def alive() -> Pid | None:
        return pid

    probe = MemoryProbe(
        home.openclaw, alive, FamilyMeter(time.monotonic), EVERY_S, int(LIMITS.ceiling)
    )
    history, guard = History(), LeakGuard(LIMITS)
    while True:
        now = time.time()
        for name, value in (await probe.read()).series.items():
            history.note(name, now, value)
        history.note("gateway_started_at", now, pid.started)
        check = guard.judge(history, now)
        if until(check) or now - pid.started >= seconds:
            return now - pid.started, check
        await asyncio.sleep(EVERY_S)


@pytest.mark.timeout(QUARTER_S + 600)
async def test_a_leak_of_1_mib_a_second_is_called_long_before_it_has_used_a_quarter(
    real: Home,
) -> None:
    plugins = {"load": {"paths": [str(PLUGIN)]}, "entries": {"slow-leak": {"enabled": True}}}
    real.write(plugins=plugins)
    async with serving(real) as (_, pid):
        after, check = await watch(
            real, pid, QUARTER_S, lambda found: found.status is CheckStatus.FAIL
        )
    assert check.status is CheckStatus.FAIL, check
    assert after < QUARTER_S / 2
    assert "MiB/s: reaches the ceiling of 4096 MiB in" in check.reason
    assert isinstance(check.observed, float | int)
    assert 0.5 * MIB < float(check.observed) < 2 * MIB


@pytest.mark.timeout(HEALTHY_S + 600)
async def test_a_healthy_gateway_under_load_is_not_called(real: Home) -> None:
    async with ModelStub() as stub:
        more: dict[str, Any] = provider(stub.port)
        gateway = {
            "mode": "local",
            "port": real.port,
            "bind": "loopback",
            "auth": {"mode": "token", "token": TOKEN},
            **WITH_TURNS["gateway"],
        }
        (real.state / "openclaw.json").write_text(json.dumps({"gateway": gateway, **more}))
        async with serving(real) as (_, pid):
            turns = asyncio.create_task(keep_busy(real.port))
            try:
                after, check = await watch(
                    real, pid, HEALTHY_S, lambda found: found.status is CheckStatus.FAIL
                )
            finally:
                turns.cancel()
                await asyncio.gather(turns, return_exceptions=True)
    assert (check.status, check.inconclusive) == (CheckStatus.PASS, False), check
    assert after >= HEALTHY_S
    assert len(stub.requests) > 50


async def keep_busy(port: int) -> None:
    async for _ in take_turns(port, TOKEN):
        pass
