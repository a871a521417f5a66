"""The gateway under launchd: the driver against an emulator that starts, restarts and ends real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import plistlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.service.base import Pid
from agent.service.jobs import gateway_job
from agent.service.launchctl import NoSessionError
from agent.service.supervised import SupervisedService
from shared.account import Account
from shared.clock import SystemClock
from shared.errors import UnavailableError
from tests.support.launchd.emulator import Launchd
from tests.support.launchdkit import ME, SLEEPER, Rig, make_rig

STUBBORN = (
    sys.executable,
    "-S",
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(300)'],"
    " start_new_session=True)\n"
    "print('up', flush=True); time.sleep(300)",
)
SLOW_TO_END = (
    sys.executable,
    "-S",
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), exit(0)))\n"
    "print('up', flush=True)\n"
    "while True: time.sleep(1)",
)
SHORT_LIVED = (sys.executable, "-S", "-c", "print('ran', flush=True)")


@contextlib.asynccontextmanager
async def kept(service: SupervisedService) -> AsyncIterator[None]:
    keeper = asyncio.create_task(service.keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def until(service: SupervisedService, unlike: Pid | None) -> Pid:
    async with asyncio.timeout(60):
        while True:
            alive = await service.alive()
            if alive is not None and alive != unlike:
                return alive
            await asyncio.sleep(0.05)


async def test_start_is_idempotent_and_stop_stays_stopped(rig: Rig) -> None:
    first = await rig.service.start(rig.spec())
    assert psutil.Process(first.pid).cmdline() == list(SLEEPER)
    assert await rig.service.start(rig.spec()) == first
    assert rig.launchd.calls() == [
        f"enable {rig.job.target} -> 0",
        f"bootstrap gui/{ME} {rig.job.plist} -> 0",
    ]
    await rig.service.stop(10)
    assert await rig.service.alive() is None
    assert not psutil.pid_exists(first.pid)
    assert rig.launchd.run("print", str(rig.job.target)).returncode == 113
    assert len(rig.changes) == 2


async def test_the_plist_is_ours_for_all_to_read_and_leads_through_current(rig: Rig) -> None:
    await rig.service.start(rig.spec())
    info = rig.job.plist.stat()
    assert (info.st_mode & 0o777, info.st_uid) == (0o644, ME)
    plist = plistlib.loads(rig.job.plist.read_bytes())
    assert plist["Label"] == "io.rollcall.gateway"
    assert plist["ProgramArguments"] == list(SLEEPER)
    assert (plist["KeepAlive"], plist["RunAtLoad"], plist["Umask"]) == (True, True, 0o077)
    written = info.st_mtime_ns
    await rig.service.stop(10)
    await rig.service.start(rig.spec())
    assert rig.job.plist.stat().st_mtime_ns == written, "an upgrade does not touch the plist"


async def test_every_start_makes_a_new_live_process(rig: Rig) -> None:
    """Three times stop and start, as upgrades do, while launchd keeps the label for a while each time."""
    rig.launchd.turn(linger_s=0.6, bootout_code=36)
    seen = []
    for _ in range(3):
        pid = await rig.service.start(rig.spec())
        assert psutil.pid_exists(pid.pid)
        seen.append(pid)
        await rig.service.stop(10)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("busy_code", [5, 37])
async def test_a_label_that_print_no_longer_shows_may_still_be_taken(
    rig: Rig, busy_code: int
) -> None:
    """Reported of macOS 26: five seconds of 5 after a bootout, with nothing to be seen in `print`."""
    rig.launchd.turn(shown_while_lingering=False, linger_s=1.5, busy_code=busy_code)
    first = await rig.service.start(rig.spec())
    await rig.service.stop(10)
    assert await rig.service.start(rig.spec()) != first
    refused = [
        call for call in rig.launchd.calls() if call.startswith("bootstrap") and call[-1] != "0"
    ]
    assert refused
    assert all(call.endswith(f"-> {busy_code}") for call in refused)


async def test_a_bootstrap_that_is_refused_without_reason_is_tried_again(rig: Rig) -> None:
    rig.launchd.turn(refused_bootstraps=3)
    await rig.service.start(rig.spec())
    assert [call[-4:] for call in rig.launchd.calls()][-4:] == ["-> 5", "-> 5", "-> 5", "-> 0"]


async def test_launchd_starts_a_killed_gateway_again_and_the_keeper_tells(rig: Rig) -> None:
    first = await rig.service.start(rig.spec())
    async with kept(rig.service):
        await asyncio.sleep(0.2)
        os.kill(first.pid, signal.SIGKILL)
        second = await until(rig.service, unlike=first)
        async with asyncio.timeout(60):
            while len(rig.changes) < 2:
                await asyncio.sleep(0.05)
    assert second.pid != first.pid
    assert len([call for call in rig.launchd.calls() if "bootstrap" in call]) == 1


async def test_another_agent_adopts_what_runs(rig: Rig) -> None:
    first = await rig.service.start(rig.spec())
    later = await rig.again()
    assert await later.alive() == first
    assert await later.start(rig.spec()) == first
    await later.stop(10)
    assert await later.alive() is None


async def test_a_first_agent_takes_what_runs_as_it_is(rig: Rig) -> None:
    """No record: a gateway that serves is not restarted because an agent was installed."""
    first = await rig.service.start(rig.spec())
    (rig.folder / "supervised.json").unlink()
    assert await (await rig.again()).start(rig.spec()) == first
    (rig.folder / "supervised.json").write_bytes(b"\0" * 20)
    assert await (await rig.again()).start(rig.spec()) == first


async def test_what_somebody_started_after_our_stop_is_restarted(rig: Rig) -> None:
    """It may have been started before the tree was switched: only a new process counts."""
    await rig.service.start(rig.spec())
    await rig.service.stop(10)
    rig.launchd.run("enable", str(rig.job.target))
    assert rig.launchd.run("bootstrap", f"gui/{ME}", str(rig.job.plist)).returncode == 0
    strange = await until(rig.service, unlike=None)
    assert await rig.service.start(rig.spec()) != strange
    assert f"kickstart -k {rig.job.target} -> 0" in rig.launchd.calls()
    assert not psutil.pid_exists(strange.pid)


async def test_another_definition_is_loaded_anew(rig: Rig) -> None:
    first = await rig.service.start(rig.spec(SLOW_TO_END))
    await rig.until_printed("up")
    other = (*SLEEPER, "other")
    second = await rig.service.start(rig.spec(other))
    assert second != first
    assert psutil.Process(second.pid).cmdline() == list(other)
    assert not psutil.pid_exists(first.pid)


async def test_killed_between_the_plist_and_the_bootstrap_the_next_agent_loads_it(
    rig: Rig,
) -> None:
    """The new plist is on disk, launchd still holds the old one."""
    await rig.service.start(rig.spec())
    other = rig.spec((*SLEEPER, "other"))
    rig.job.plist.write_bytes(
        gateway_job("io.rollcall.gateway", other, in_system_domain=False).render()
    )
    pid = await (await rig.again()).start(other)
    assert psutil.Process(pid.pid).cmdline()[-1] == "other"


async def test_a_stopped_gateway_does_not_come_back_with_a_reboot(rig: Rig) -> None:
    """A reboot in the middle of an upgrade: launchd loads what lies in its folders."""
    await rig.service.start(rig.spec())
    await rig.service.stop(10)
    rig.launchd.end()
    rig.launchd.start()
    assert rig.launchd.run("bootstrap", f"gui/{ME}", str(rig.job.plist)).returncode == 5
    assert await (await rig.again()).start(rig.spec())


async def test_what_somebody_disabled_is_enabled_first(rig: Rig) -> None:
    """Law 8: a refused start of OpenClaw's own leaves the label disabled."""
    first = await rig.service.start(rig.spec())
    rig.launchd.run("disable", str(rig.job.target))
    rig.launchd.run("bootout", str(rig.job.target))
    async with asyncio.timeout(60):
        while await rig.service.alive() is not None:
            await asyncio.sleep(0.05)
    assert await rig.service.start(rig.spec()) != first


async def test_one_that_ignores_sigterm_is_killed_with_all_its_children(rig: Rig) -> None:
    """launchd ends the process group; a child that left it would outlive the job."""
    started = await rig.service.start(rig.spec(STUBBORN))
    await rig.until_printed("up")
    children = psutil.Process(started.pid).children(recursive=True)
    assert children
    await rig.service.stop(0.5)
    for process in [psutil.Process(started.pid)] if psutil.pid_exists(started.pid) else []:
        assert process.status() == psutil.STATUS_ZOMBIE
    for process in children:
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_exit_timeout_is_launchds_own_limit(rig: Rig) -> None:
    rig.launchd.turn(exit_scale=0.02)
    await rig.service.start(rig.spec(STUBBORN))
    await rig.until_printed("up")
    await rig.service.stop(15)
    assert "SIGKILL" in rig.launchd.log()


async def test_booted_without_a_session_is_an_error_of_its_own(
    launchd: Launchd, tmp_path: Path
) -> None:
    launchd.turn(sessions=[])
    rig = await make_rig(launchd, tmp_path)
    assert await rig.service.alive() is None
    with pytest.raises(NoSessionError, match=r"booted, no session.*log in") as caught:
        await rig.service.start(rig.spec())
    assert caught.value.code == "no-session"
    await rig.service.stop(5)
    launchd.turn(sessions=[ME])
    assert await rig.service.start(rig.spec())


@pytest.mark.skipif(ME != 0, reason="only root acts across sessions")
async def test_root_acts_in_a_users_session(launchd: Launchd, tmp_path: Path) -> None:
    """The job of another user's GUI domain, from a daemon that stands in no session."""
    account = Account.find("nobody")
    launchd.turn(sessions=[account.uid], needs_asuser=True)
    rig = await make_rig(launchd, tmp_path, f"gui/{account.uid}")
    folder = launchd.folder / "Library"
    folder.mkdir()
    os.chown(folder, account.uid, account.gid)
    job = replace(rig.job, plist=folder / "io.rollcall.gateway.plist", logs=launchd.folder / "logs")
    service = await rig.again(job)
    spec = replace(rig.spec(("/bin/sleep", "300")), account=account, cwd=Path("/"))
    first = await service.start(spec)
    assert psutil.Process(first.pid).uids().real == account.uid
    assert (job.logs / "gateway.log").stat().st_uid == account.uid
    assert job.logs.stat().st_uid == 0
    await service.stop(10)
    assert await service.start(spec) != first
    await service.stop(10)


async def test_the_throttle_is_waited_for(rig: Rig) -> None:
    """A job that ended at once is "spawn scheduled"; a start does not wait for that."""
    rig.launchd.turn(throttle_scale=1.0)
    with pytest.raises(UnavailableError, match=r"no new live process.*spawn scheduled"):
        await (await rig.again(clock=FastClock())).start(rig.spec(SHORT_LIVED))


class FastClock(SystemClock):
    """Sleeps as told; its seconds pass ten times as fast, so that limits come soon."""

    def monotonic(self) -> float:
        return super().monotonic() * 10


async def test_a_launchd_that_never_takes_the_job_is_given_up(rig: Rig) -> None:
    rig.launchd.turn(refused_bootstraps=10_000)
    with pytest.raises(UnavailableError, match="Bootstrap failed: 5") as caught:
        await (await rig.again(clock=FastClock())).start(rig.spec())
    assert "launchctl print-disabled" in str(caught.value)


async def test_a_job_that_is_taken_away_is_put_back_unless_it_was_forbidden(rig: Rig) -> None:
    """OpenClaw issue 46012: unloaded after an update, hours offline."""
    first = await rig.service.start(rig.spec())
    service = await rig.again(clock=FastSleep())
    assert await service.start(rig.spec()) == first
    rig.launchd.run("bootout", str(rig.job.target))
    async with kept(service):
        second = await until(service, unlike=first)
        rig.launchd.run("disable", str(rig.job.target))
        rig.launchd.run("bootout", str(rig.job.target))
        await asyncio.sleep(4)
        assert await service.alive() is None
    assert second != first


class FastSleep(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)
