"""The supervisor, on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agent.service.base import Pid, ServiceSpec
from agent.service.process import ProcessService
from shared.clock import SystemClock

SLEEPER = (sys.executable, "-c", "import time; time.sleep(300)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)\n"
    "print('up', flush=True); time.sleep(300)",
)


def spec(tmp_path: Path, argv: tuple[str, ...] = SLEEPER) -> ServiceSpec:
    return ServiceSpec(argv, {"PATH": os.environ["PATH"]}, tmp_path, tmp_path / "gateway.log")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ProcessService]:
    service = await ProcessService.open(tmp_path, SystemClock(), lambda: None)
    yield service
    await service.stop(0.2)


async def until_alive(service: ProcessService, unlike: Pid | None = None) -> Pid:
    async with asyncio.timeout(15):
        while True:
            alive = await service.alive()
            if alive is not None and alive != unlike:
                return alive
            await asyncio.sleep(0.05)


async def test_start_is_idempotent_and_stop_stays_stopped(
    service: ProcessService, tmp_path: Path
) -> None:
    first = await service.start(spec(tmp_path))
    assert await service.start(spec(tmp_path)) == first
    await service.stop(5)
    assert await service.alive() is None
    assert not psutil.pid_exists(first.pid)


async def test_a_killed_gateway_is_started_again(service: ProcessService, tmp_path: Path) -> None:
    keeper = asyncio.create_task(service.keep())
    first = await service.start(spec(tmp_path))
    os.kill(first.pid, signal.SIGKILL)
    assert await until_alive(service, unlike=first) != first
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


async def test_another_agent_adopts_what_runs(service: ProcessService, tmp_path: Path) -> None:
    """The gateway outlives its agent; a restarted agent must not start a second one."""
    first = await service.start(spec(tmp_path))
    later = await ProcessService.open(tmp_path, SystemClock(), lambda: None)
    assert await later.alive() == first
    assert await later.start(spec(tmp_path)) == first
    await later.stop(5)
    assert await later.alive() is None


async def test_a_stranger_with_the_old_number_is_not_ours(
    service: ProcessService, tmp_path: Path
) -> None:
    await service.start(spec(tmp_path))
    state = tmp_path / "gateway.json"
    mine = psutil.Process()
    text = state.read_text()
    was = await ProcessService.open(tmp_path, SystemClock(), lambda: None)
    pid = await was.alive()
    assert pid is not None
    state.write_text(text.replace(f'"pid":{pid.pid}', f'"pid":{mine.pid}'))
    assert await (await ProcessService.open(tmp_path, SystemClock(), lambda: None)).alive() is None
    state.write_text(text)


async def test_one_that_ignores_sigterm_is_killed_with_all_its_children(
    service: ProcessService, tmp_path: Path
) -> None:
    started = await service.start(spec(tmp_path, STUBBORN))
    async with asyncio.timeout(60):
        while "up" not in (tmp_path / "gateway.log").read_text():
            await asyncio.sleep(0.05)
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    await service.stop(0.3)
    for process in children:
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_what_was_wanted_is_started_after_a_reboot(
    service: ProcessService, tmp_path: Path
) -> None:
    first = await service.start(spec(tmp_path))
    os.kill(first.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while await service.alive() is not None:
            await asyncio.sleep(0.05)
    later = await ProcessService.open(tmp_path, SystemClock(), lambda: None)
    await later.resume()
    assert await later.alive() is not None
    await later.stop(5)


async def test_killed_between_start_and_record_it_is_found_by_its_mark(
    service: ProcessService, tmp_path: Path
) -> None:
    """P4: what an agent leaves behind that dies right after the start."""
    first = await service.start(spec(tmp_path))
    state = tmp_path / "gateway.json"
    record = json.loads(state.read_text())
    state.write_text(json.dumps({**record, "pid": None, "started": None}))
    later = await ProcessService.open(tmp_path, SystemClock(), lambda: None)
    found = await later.alive()
    assert found is not None
    assert found.pid == first.pid
    assert await later.start(spec(tmp_path)) == found
