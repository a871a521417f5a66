"""The emulator keeps to what MACOS.md and OPENCLAW.md say of launchd; the drivers are judged by it."""

from __future__ import annotations

import os
import plistlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.service.printed import PrintedJob, read_disabled, read_job
from tests.support.launchd.emulator import Launchd

ME = os.geteuid()
DOMAIN = f"gui/{ME}"
TARGET = f"{DOMAIN}/a.job"


def write(folder: Path, argv: list[str], **keys: Any) -> Path:
    path = folder / "a.job.plist"
    path.write_bytes(plistlib.dumps({"Label": "a.job", "ProgramArguments": argv, **keys}))
    return path


def until(good: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not good():
        assert time.monotonic() < ends
        time.sleep(0.02)


def printed(launchd: Launchd) -> PrintedJob:
    job = read_job(launchd.run("print", TARGET).stdout)
    assert job is not None
    return job


def test_bootout_returns_before_the_end_and_a_bootstrap_then_fails_with_5(
    launchd: Launchd, tmp_path: Path
) -> None:
    slow = (
        "import signal, time\n"
        "signal.signal(15, lambda *_: (time.sleep(1), exit(0)))\n"
        "print(1, flush=True)\n"
        "while 1: time.sleep(1)"
    )
    out = tmp_path / "out"
    argv = [sys.executable, "-S", "-c", slow]
    plist = write(tmp_path, argv, KeepAlive=True, StandardOutPath=str(out))
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 0
    until(lambda: out.exists() and out.read_text() != "")
    pid = printed(launchd).pid
    assert pid is not None
    again = launchd.run("bootstrap", DOMAIN, str(plist))
    assert (again.returncode, "37: Operation already in progress" in again.stderr) == (37, True)
    assert launchd.run("bootout", TARGET).returncode == 0
    assert psutil.pid_exists(pid)
    busy = launchd.run("bootstrap", DOMAIN, str(plist))
    assert (busy.returncode, "5: Input/output error" in busy.stderr) == (5, True)
    until(lambda: launchd.run("print", TARGET).returncode == 113)
    assert launchd.run("bootout", TARGET).returncode == 3
    assert launchd.run("kickstart", "-k", TARGET).returncode == 113
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 0


def test_a_disabled_label_stays_so_over_bootout_and_reboot(
    launchd: Launchd, tmp_path: Path
) -> None:
    plist = write(tmp_path, ["/bin/sleep", "300"])
    launchd.run("disable", TARGET)
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 5
    launchd.end()
    launchd.start()
    assert read_disabled(launchd.run("print-disabled", DOMAIN).stdout) == {"a.job": True}
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 5
    launchd.run("enable", TARGET)
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 0


def test_no_session_is_125_and_a_missing_domain(launchd: Launchd, tmp_path: Path) -> None:
    plist = write(tmp_path, ["/bin/sleep", "300"])
    assert launchd.run("bootstrap", "gui/4242", str(plist)).returncode == 125
    assert launchd.run("print", "gui/4242").returncode == 112


@pytest.mark.parametrize("spoil", ["mode", "owner", "text", "label"])
def test_a_plist_that_launchd_would_not_take_is_5(
    launchd: Launchd, tmp_path: Path, spoil: str
) -> None:
    plist = write(tmp_path, ["/bin/sleep", "300"])
    if spoil == "mode":
        plist.chmod(0o664)
    elif spoil == "owner":
        if ME != 0:
            pytest.skip("only root gives files away")
        os.chown(plist, 65534, 65534)
    elif spoil == "text":
        plist.write_text("{}")
    else:
        plist.write_bytes(plistlib.dumps({"ProgramArguments": ["/bin/sleep", "1"]}))
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 5


def test_keepalive_is_throttled_and_the_group_is_killed(launchd: Launchd, tmp_path: Path) -> None:
    """A child in the job's process group ends with it; one with its own session does not."""
    spawn = (
        "import subprocess, sys\n"
        "group = subprocess.Popen(['/bin/sleep', '300'])\n"
        "alone = subprocess.Popen(['/bin/sleep', '300'], start_new_session=True)\n"
        "print(group.pid, alone.pid, flush=True)"
    )
    out = tmp_path / "out"
    argv = [sys.executable, "-S", "-c", spawn]
    launchd.turn(throttle_scale=0.2)
    plist = write(tmp_path, argv, KeepAlive=True, StandardOutPath=str(out))
    assert launchd.run("bootstrap", DOMAIN, str(plist)).returncode == 0
    until(lambda: out.exists() and out.read_text().count("\n") >= 1)
    group, alone = map(int, out.read_text().splitlines()[0].split())
    until(lambda: not psutil.pid_exists(group))
    assert psutil.pid_exists(alone)
    assert printed(launchd).state == "spawn scheduled"
    until(lambda: printed(launchd).runs == 2)
    launchd.end()
    assert not psutil.pid_exists(alone), "nothing is left of an emulator"


def test_a_job_with_an_interval_comes_again(launchd: Launchd, tmp_path: Path) -> None:
    launchd.turn(throttle_scale=0.01)
    plist = write(tmp_path, ["/bin/true"], StartInterval=60, RunAtLoad=True)
    launchd.run("bootstrap", DOMAIN, str(plist))
    until(lambda: (printed(launchd).runs or 0) >= 3)
