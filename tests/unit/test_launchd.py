"""The gateway under launchd: the driver against an emulator that starts, restarts and ends real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import plistlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.service import loader
from agent.service.base import Pid, ServiceSpec
from agent.service.jobs import gateway_job
from agent.service.launchctl import Launchctl, NoSessionError, Target
from agent.service.launchd import LaunchdJob, LaunchdSupervisor
from agent.service.printed import read_disabled, read_job
from agent.service.supervised import SupervisedService
from shared.account import Account
from shared.clock import Clock, SystemClock
from shared.errors import CommandError, ConfigError, UnavailableError
from tests.support.launchd.emulator import Launchd, emulated_launchd

ME = os.geteuid()
SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(300)")
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


@pytest.fixture
def launchd() -> Iterator[Launchd]:
    with emulated_launchd() as made:
        yield made


@dataclass
class Rig:
    """A driver and what it drives. `again` is a later agent's driver on the same record."""

    launchd: Launchd
    folder: Path
    service: SupervisedService
    job: LaunchdJob
    changes: list[int]

    def spec(self, argv: tuple[str, ...] = SLEEPER) -> ServiceSpec:
        env = {"PATH": os.environ["PATH"]}
        return ServiceSpec(argv, env, self.folder, self.folder / "gateway.log")

    async def again(
        self, job: LaunchdJob | None = None, clock: Clock | None = None
    ) -> SupervisedService:
        clock = clock or SystemClock()
        supervisor = LaunchdSupervisor(job or self.job, Launchctl(self.launchd.launchctl), clock)
        service = SupervisedService(self.folder, supervisor, clock, lambda: self.changes.append(1))
        await service.load()
        return service

    async def until_printed(self, word: str) -> None:
        async with asyncio.timeout(10):
            log = self.folder / "gateway.log"
            while not log.exists() or word not in log.read_text():
                await asyncio.sleep(0.05)


async def make_rig(launchd: Launchd, tmp_path: Path, domain: str = f"gui/{ME}") -> Rig:
    label = "io.rollcall.gateway"
    job = LaunchdJob(Target(domain, label), tmp_path / f"{label}.plist", tmp_path / "gateway-logs")
    changes: list[int] = []
    supervisor = LaunchdSupervisor(job, Launchctl(launchd.launchctl), SystemClock())
    service = SupervisedService(tmp_path, supervisor, SystemClock(), lambda: changes.append(1))
    return Rig(launchd, tmp_path, service, job, changes)


@pytest.fixture
async def rig(launchd: Launchd, tmp_path: Path) -> Rig:
    return await make_rig(launchd, tmp_path)


@contextlib.asynccontextmanager
async def kept(service: SupervisedService) -> AsyncIterator[None]:
    keeper = asyncio.create_task(service.keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def until(service: SupervisedService, unlike: Pid | None) -> Pid:
    async with asyncio.timeout(20):
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
        async with asyncio.timeout(5):
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
    async with asyncio.timeout(10):
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


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o666), "nobody else may write"),
        (lambda path: path.write_bytes(b"<plist><dict>"), "not a property list"),
        (lambda path: path.write_bytes(plistlib.dumps([1])), "not a property list of a job"),
        (lambda path: path.write_bytes(plistlib.dumps({"Label": "x"})), "plist of 'x'"),
        (lambda path: path.unlink(), "gateway install --force --wrapper"),
    ],
)
async def test_a_plist_of_openclaws_is_judged_and_never_written(
    rig: Rig, spoil: Any, said: str
) -> None:
    """launchd would say 5 to each of them."""
    plist = rig.folder / "ai.openclaw.gateway.plist"
    job = LaunchdJob(Target(f"gui/{ME}", "ai.openclaw.gateway"), plist, rig.folder / "logs")
    theirs = {"Label": "ai.openclaw.gateway", "ProgramArguments": list(SLEEPER), "KeepAlive": True}
    plist.write_bytes(plistlib.dumps(theirs))
    spoil(plist)
    before = plist.read_bytes() if plist.exists() else None
    with pytest.raises(ConfigError, match=said):
        await (await rig.again(job)).start(rig.spec())
    assert (plist.read_bytes() if plist.exists() else None) == before


async def test_openclaws_own_job_is_driven_whatever_our_spec_says(rig: Rig) -> None:
    plist = rig.folder / "ai.openclaw.gateway.plist"
    job = LaunchdJob(Target(f"gui/{ME}", "ai.openclaw.gateway"), plist, rig.folder / "logs")
    theirs = {"Label": "ai.openclaw.gateway", "ProgramArguments": list(SLEEPER), "RunAtLoad": True}
    plist.write_bytes(plistlib.dumps(theirs))
    service = await rig.again(job)
    first = await service.start(rig.spec(("/nowhere/node", "gateway")))
    assert psutil.Process(first.pid).cmdline() == list(SLEEPER)
    assert await service.start(rig.spec(("/elsewhere/node", "gateway"))) == first
    await service.stop(10)
    assert await service.start(rig.spec()) != first
    await service.stop(10)
    assert plistlib.loads(plist.read_bytes()) == theirs


async def test_a_plist_with_a_wrong_owner_or_mode_is_made_anew(rig: Rig) -> None:
    await rig.service.start(rig.spec())
    await rig.service.stop(10)
    rig.job.plist.chmod(0o666)
    if ME == 0:
        os.chown(rig.job.plist, 65534, 65534)
    await rig.service.start(rig.spec())
    info = rig.job.plist.stat()
    assert (info.st_mode & 0o777, info.st_uid) == (0o644, ME)


async def test_a_launchctl_that_hangs_is_not_waited_for(rig: Rig, tmp_path: Path) -> None:
    hanging = tmp_path / "launchctl"
    hanging.write_text("#!/bin/sh\nsleep 60\n")
    hanging.chmod(0o755)
    launchctl = Launchctl(hanging, timeout_s=0.3)
    with pytest.raises(CommandError, match="did not end within"):
        await launchctl.job(rig.job.target)
    supervisor = LaunchdSupervisor(rig.job, launchctl, SystemClock())
    service = SupervisedService(tmp_path, supervisor, SystemClock(), lambda: None)
    assert await service.alive() is None


def test_the_limits_are_longer_than_what_launchd_is_known_to_take() -> None:
    assert loader.LOAD_S > 5 + 20, "ExitTimeOut, and the label's release after it"


PRINTED = """gui/501/ai.openclaw.gateway = {
\tactive count = 1
\tpath = /Users/fleet/Library/LaunchAgents/ai.openclaw.gateway.plist
\ttype = LaunchAgent
\tstate = running

\tprogram = /bin/sh
\targuments = {
\t\t/bin/sh
\t\tpid = 666
\t}

\tenvironment = {
\t\tXPC_SERVICE_NAME => ai.openclaw.gateway
\t\tstate = stopped
\t}

\truns = 3
\tpid = 4242
\tlast exit code = (never exited)
}
"""


def test_a_printed_job_is_read_one_level_deep() -> None:
    job = read_job(PRINTED)
    assert job is not None
    assert (job.state, job.pid, job.runs) == ("running", 4242, 3)
    assert job.last_exit == "(never exited)"
    assert job.path.endswith("/ai.openclaw.gateway.plist")


@pytest.mark.parametrize(
    "text",
    ["", "gui/501/x = {\n}\n", PRINTED.replace("\truns = 3", "\tpid = 666"), "\0\0", PRINTED[:40]],
)
def test_what_is_no_printed_job_or_two_at_once_is_not_believed(text: str) -> None:
    assert read_job(text) is None


@pytest.mark.parametrize(("off", "on"), [("true", "false"), ("disabled", "enabled")])
def test_disabled_labels_in_both_spellings(off: str, on: str) -> None:
    text = f'\tdisabled services = {{\n\t\t"a.b" => {off}\n\t\t"c.d" => {on}\n\t}}\n'
    assert read_disabled(text) == {"a.b": True, "c.d": False}
