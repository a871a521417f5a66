"""An agent that is killed while it starts or stops a job of launchd: the next one goes on from there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from shared.failpoint import ARMED, REACHED, VARIABLE
from tests.support.launchdkit import ROOT, Rig

VICTIM = """
import asyncio, json, sys
from pathlib import Path
from tests.support.launchd.emulator import Launchd
from tests.support.launchdkit import make_rig

async def main(folder, home, verbs):
    rig = await make_rig(Launchd(Path(folder)), Path(home))
    await rig.service.load()
    for verb in verbs:
        await (rig.service.start(rig.spec()) if verb == "start" else rig.service.stop(10))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


async def run_victim(rig: Rig, folder: Path, *verbs: str) -> int | None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        VICTIM,
        str(rig.launchd.folder),
        str(rig.folder),
        *verbs,
        cwd=ROOT,
        env={**os.environ, VARIABLE: str(folder), "PYTHONPATH": str(ROOT)},
    )
    return await asyncio.wait_for(process.wait(), 60)


@pytest.mark.parametrize(
    "point",
    [
        "written.supervised.json",
        "launchd.enable",
        "launchd.launched",
        "launchd.disable",
        "launchd.bootout",
    ],
)
async def test_killed_anywhere_the_next_agent_starts_and_stops_it(
    rig: Rig, tmp_path: Path, point: str
) -> None:
    folder = tmp_path / "points"
    folder.mkdir()
    (folder / ARMED).write_text(f"{point}#1")
    assert await run_victim(rig, folder, "start", "stop") == -signal.SIGKILL
    assert point in (folder / REACHED).read_text().splitlines()
    later = await rig.again()
    pid = await later.start(rig.spec())
    assert psutil.pid_exists(pid.pid)
    assert json.loads((rig.folder / "supervised.json").read_text())["wanted"] is True
    await later.stop(10)
    assert not psutil.pid_exists(pid.pid)
    assert rig.launchd.run("print", str(rig.job.target)).returncode == 113
