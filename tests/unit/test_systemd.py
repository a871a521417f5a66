"""The gateway under systemd: the driver against an emulator with real processes, the file against systemd."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from agent.service.base import Pid, ServiceSpec
from agent.service.jobs import agent_unit
from agent.service.supervised import SupervisedService
from agent.service.systemctl import Systemctl
from agent.service.systemd import SystemdSupervisor
from agent.service.units import Unit
from shared.clock import SystemClock
from shared.errors import CommandError, ConfigError, ConflictError
from tests.support.launchd.emulator import Systemd, emulated_systemd

SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(300)")
NAME = "rollcall-gateway.service"
ODD = ("/bin/echo", "a b", 'say "hi"', "50 %", "$HOME", "back\\slash", "it's", "${X}", "%n")


@dataclass
class Rig:
    systemd: Systemd
    folder: Path

    async def service(self) -> SupervisedService:
        systemctl = Systemctl(self.systemd.systemctl)
        supervisor = SystemdSupervisor(NAME, self.systemd.units, systemctl)
        service = SupervisedService(self.folder, supervisor, SystemClock(), lambda: None)
        await service.load()
        return service

    def spec(self, argv: tuple[str, ...] = SLEEPER) -> ServiceSpec:
        env = {"PATH": os.environ["PATH"], "SAID": 'with "quotes" and 5 %'}
        return ServiceSpec(argv, env, self.folder, self.folder / "gateway.log")

    def wanted_at_boot(self) -> bool:
        return (self.systemd.units / "multi-user.target.wants" / NAME).is_symlink()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with emulated_systemd() as systemd:
        yield Rig(systemd, tmp_path)


async def until(service: SupervisedService, unlike: Pid) -> Pid:
    async with asyncio.timeout(60):
        while True:
            alive = await service.alive()
            if alive is not None and alive != unlike:
                return alive
            await asyncio.sleep(0.05)


async def test_start_is_idempotent_and_each_start_after_a_stop_is_a_new_process(rig: Rig) -> None:
    service = await rig.service()
    assert await service.alive() is None
    first = await service.start(rig.spec())
    assert psutil.Process(first.pid).environ()["SAID"] == 'with "quotes" and 5 %'
    assert await service.start(rig.spec()) == first
    assert rig.wanted_at_boot()
    await service.stop(10)
    assert not psutil.pid_exists(first.pid)
    assert not rig.wanted_at_boot(), "a reboot in mid-upgrade must not start it"
    written = (rig.systemd.units / NAME).stat()
    assert await service.start(rig.spec()) != first
    after = (rig.systemd.units / NAME).stat()
    assert (after.st_mtime_ns, after.st_mode & 0o777) == (written.st_mtime_ns, 0o644)


async def test_another_agent_adopts_it_and_systemd_restarts_what_was_killed(rig: Rig) -> None:
    first = await (await rig.service()).start(rig.spec())
    later = await rig.service()
    assert await later.start(rig.spec()) == first
    os.kill(first.pid, signal.SIGKILL)
    assert await until(later, unlike=first) != first


async def test_another_definition_is_loaded_and_started(rig: Rig) -> None:
    service = await rig.service()
    first = await service.start(rig.spec())
    second = await service.start(rig.spec((*SLEEPER, "other")))
    assert psutil.Process(second.pid).cmdline()[-1] == "other"
    assert not psutil.pid_exists(first.pid)


async def test_one_that_ignores_sigterm_is_killed(rig: Rig) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    service = await rig.service()
    started = await service.start(rig.spec((sys.executable, "-S", "-c", stubborn)))
    async with asyncio.timeout(60):
        while "up" not in (rig.folder / "gateway.log").read_text():
            await asyncio.sleep(0.05)
    await service.stop(0.3)
    assert not psutil.pid_exists(started.pid)


async def test_a_masked_unit_is_not_forced(rig: Rig) -> None:
    service = await rig.service()
    rig.systemd.run("mask", NAME)
    with pytest.raises(ConflictError, match="systemctl unmask"):
        await service.start(rig.spec())


async def test_a_systemctl_that_is_no_systemctl_is_said(rig: Rig, tmp_path: Path) -> None:
    for text, said in (("exit 1", "failed"), ("echo hello", "no service that can be read")):
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        with pytest.raises(CommandError, match=said):
            await Systemctl(program).show(NAME)


def unit(arguments: tuple[str, ...], folder: Path) -> Unit:
    return Unit("a test's", arguments, folder / "50 %.log", env={"A": 'x "y" $Z %h'}, user="daemon")


def test_words_survive_the_unit_file(tmp_path: Path) -> None:
    """Read back by another reader of systemd's quoting."""
    from tests.support.systemd.manager import read_unit

    path = tmp_path / "a.service"
    path.write_bytes(unit(ODD, tmp_path).render())
    read = read_unit(path)
    assert tuple(read["ProgramArguments"]) == ODD
    assert read["EnvironmentVariables"]["A"] == 'x "y" $Z %h'
    assert read["StandardOutPath"] == str(tmp_path / "50 %.log")


def test_text_that_would_begin_another_line_is_refused(tmp_path: Path) -> None:
    for bad in ("a\nUser=root", "a\rb", "nul\0", "\x1b[2J"):
        with pytest.raises(ConfigError, match="unit file"):
            unit(("/bin/echo", bad), tmp_path).render()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_itself_has_nothing_to_say_against_the_unit_file(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for job in (unit(ODD, tmp_path), agent_unit(Path("/bin/echo"), tmp_path)):
        path.write_bytes(job.render())
        assert verified(path) == (0, [])
    path.write_bytes(path.read_bytes().replace(b"Restart=always", b"Restart=sometimes"))
    assert verified(path)[1], "it would say so"


def verified(path: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if path.name in line]
