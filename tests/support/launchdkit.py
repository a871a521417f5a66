"""A driver of launchd and what it drives, for tests."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.service.base import ServiceSpec
from agent.service.launchctl import Launchctl, Target
from agent.service.launchd import LaunchdJob, LaunchdSupervisor
from agent.service.supervised import SupervisedService
from shared.clock import Clock, SystemClock
from tests.support.launchd.emulator import Launchd

ROOT = Path(__file__).resolve().parents[2]
ME = os.geteuid()
SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(300)")


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
        async with asyncio.timeout(60):
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
