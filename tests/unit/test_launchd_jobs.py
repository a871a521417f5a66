"""Jobs of launchd: OpenClaw's own, plists that launchd would refuse, and what `print` says."""

from __future__ import annotations

import os
import plistlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.service import loader
from agent.service.launchctl import Launchctl, Target
from agent.service.launchd import LaunchdJob, LaunchdSupervisor
from agent.service.printed import read_disabled, read_job
from agent.service.supervised import SupervisedService
from shared.clock import SystemClock
from shared.errors import CommandError, ConfigError
from tests.support.launchdkit import ME, SLEEPER, Rig


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
