"""Property lists of our jobs: what launchd needs in them, read by a parser that is not Python's."""

from __future__ import annotations

import contextlib
import plistlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.service.base import ServiceSpec
from agent.service.jobs import agent_job, gateway_job, watchdog_job
from scripts.plists import FOLDER, samples
from shared.account import Account
from shared.errors import ConfigError
from shared.plist import Job

LAUNCHER, HOME = Path("/opt/a & b/launcher"), Path("/Library/Application Support/Rollcall")
SPEC = ServiceSpec(
    ("/opt/node/bin/node", "/x/current/openclaw", "gateway", "--port", "18789"),
    {"HOME": "/Users/fleet", "PATH": "/opt/node/bin:/usr/bin:/bin"},
    Path("/Users/fleet"),
    Path("/x/logs/gateway.log"),
    Account(name="fleet", uid=501, gid=20),
)
JOBS = [
    agent_job(LAUNCHER, HOME),
    watchdog_job(LAUNCHER, HOME),
    gateway_job("io.rollcall.gateway", SPEC, in_system_domain=True),
    *samples(),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.label)
def test_every_job_has_what_launchd_needs_of_it(job: Job) -> None:
    plist = plistlib.loads(job.render())
    assert plist["Label"].startswith("io.rollcall.")
    assert not plist["ProgramArguments"][0].endswith(("python", "python3", "/sh")), "MACOS.md, 9"
    assert plist["RunAtLoad"] is True
    assert plist["Umask"] == 0o077
    assert plist["ExitTimeOut"] >= 20
    assert plist["ThrottleInterval"] >= 10
    for limits in ("SoftResourceLimits", "HardResourceLimits"):
        assert plist[limits]["NumberOfFiles"] >= 4096
    assert plist["EnvironmentVariables"]["PATH"].endswith("/usr/bin:/bin:/usr/sbin:/sbin") or (
        job.label.endswith("gateway")
    )
    assert plist["StandardOutPath"] == plist["StandardErrorPath"] == str(job.printed)
    assert "AbandonProcessGroup" not in plist
    assert "LimitLoadToSessionType" not in plist


def test_daemons_are_kept_alive_and_the_watchdog_comes_and_goes() -> None:
    agent, watchdog = (plistlib.loads(job.render()) for job in JOBS[:2])
    assert (agent["KeepAlive"], agent["ProcessType"]) == (True, "Interactive")
    assert "KeepAlive" not in watchdog
    assert (watchdog["StartInterval"], watchdog["ProcessType"]) == (60, "Background")
    assert agent["ProgramArguments"] == [str(LAUNCHER), "run", "--home", str(HOME)]
    assert watchdog["ProgramArguments"] == [str(LAUNCHER), "watchdog", "--home", str(HOME)]


def test_the_gateway_runs_as_its_account_in_the_system_domain_only() -> None:
    """In a GUI domain the user is the domain's, and UserName is not allowed there."""
    system = gateway_job("io.rollcall.gateway", SPEC, in_system_domain=True).plist()
    assert (system["UserName"], system["InitGroups"]) == ("fleet", True)
    assert "UserName" not in gateway_job("a", SPEC, in_system_domain=False).plist()
    assert system["ProgramArguments"] == list(SPEC.argv)
    assert system["EnvironmentVariables"] == SPEC.env


@pytest.mark.skipif(shutil.which("plistutil") is None, reason="libplist-utils is not installed")
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.label)
def test_an_independent_parser_reads_the_same(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    path.write_bytes(job.render())
    assert read_by_plistutil(path) == job.plist()


def read_by_plistutil(path: Path) -> Any:
    """libplist parses our XML; what it understood comes back in the binary form."""
    done = subprocess.run(
        ["plistutil", "-i", str(path), "-f", "bin"], capture_output=True, timeout=30, check=True
    )
    assert done.stdout.startswith(b"bplist00"), done.stderr
    return plistlib.loads(done.stdout)


def test_the_samples_are_what_the_builder_writes() -> None:
    """Otherwise: python -m scripts.plists"""
    wanted = {f"{job.label}.plist": job.render() for job in samples()}
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == wanted


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.text(max_size=20))
@example(["a\rb"], "")
@example(["a"], "\r\n")
@example(["\ud800"], "")
def test_any_text_is_written_faithfully_or_refused(words: list[str], value: str) -> None:
    job = Job("io.rollcall.x", tuple(words), Path("/x"), env={"X": value})
    with contextlib.suppress(ConfigError):
        assert plistlib.loads(job.render()) == job.plist()


@pytest.mark.parametrize("text", ["\0", "\x1b", "a\rb", "\ud800"])
def test_what_xml_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="property list"):
        Job("io.rollcall.x", (text,), Path("/x")).render()
