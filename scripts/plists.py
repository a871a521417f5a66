"""Writes the samples in `launchd/`: what `rollcall-agent install` writes on a Mac, and the coordinator's.

python -m scripts.plists
"""

from __future__ import annotations

from pathlib import Path

from agent.service.jobs import agent_job, watchdog_job
from coordinator.plists import coordinator_job
from shared.plist import Job

FOLDER = Path(__file__).resolve().parent.parent / "launchd"
HOME = Path("/Library/Application Support/Rollcall")
COORDINATOR_HOME = Path("/Library/Application Support/Rollcall Coordinator")


def samples() -> list[Job]:
    launcher = HOME / "launcher"
    coordinator = coordinator_job(
        COORDINATOR_HOME / "bin" / "rollcall", COORDINATOR_HOME, "0.0.0.0:7443", "_rollcall"
    )
    return [agent_job(launcher, HOME), watchdog_job(launcher, HOME), coordinator]


def main() -> None:
    for job in samples():
        path = FOLDER / f"{job.label}.plist"
        path.write_bytes(job.render())
        print(path.name)


if __name__ == "__main__":
    main()
