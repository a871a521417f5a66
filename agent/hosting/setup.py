"""Puts the agent on this host and takes it off again: does what a plan says, and looks whether it came true."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.hosting.plan import DOMAIN, File, Plan, plan_uninstall
from agent.service.host import Host
from agent.service.jobs import AGENT_LABEL, AGENT_UNIT, WATCHDOG_LABEL
from agent.service.launchctl import Launchctl, Target
from agent.service.loader import Loader
from agent.service.processes import Sighting
from agent.service.systemctl import Systemctl
from shared.clock import Clock
from shared.durable import write_durable
from shared.errors import NotFoundError, RollcallError, UnavailableError
from shared.failpoint import fail_point

UP_S = 30.0
POLL_S = 0.2


class Setup:
    """For one host. Every method raises RollcallError when what it does has not come true at the deadline."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host, self._clock = host, clock

    async def install(self, plan: Plan) -> int:
        """The agent's process. An agent that runs from the same files already is left alone."""
        changed = {file.path for file in plan.files if await asyncio.to_thread(_write, file)}
        fail_point("install.written")
        if not plan.labels:
            return await self._start_unit(restart=bool(changed))
        for label in plan.labels:
            await self._load(label, reload=self._plist(label) in changed)
        return await self._wait_for_process()

    async def uninstall(self) -> list[Path]:
        """What was removed."""
        plan = plan_uninstall(self._host)
        await self.stop()
        fail_point("uninstall.stopped")
        removed = [file.path for file in plan.files if file.path.exists()]
        for path in removed:
            path.unlink()
        if not plan.labels:
            await self._systemctl().change("daemon-reload")
        return removed

    async def start(self) -> int:
        """The agent's process. Raises NotFoundError when it was never installed."""
        path = self._plist(AGENT_LABEL) if self._host.is_mac else self._host.units / AGENT_UNIT
        if not path.exists():
            raise NotFoundError(
                f"the agent is not installed: there is no {path}",
                remedy="first: rollcall-agent install",
            )
        if not self._host.is_mac:
            return await self._start_unit(restart=False)
        for label in (AGENT_LABEL, WATCHDOG_LABEL):
            await self._load(label, reload=False)
        return await self._wait_for_process()

    async def stop(self) -> None:
        """The watchdog first, which would bring the agent back. The gateway serves on."""
        if not self._host.is_mac:
            await self._stop_unit()
            return
        for label in (WATCHDOG_LABEL, AGENT_LABEL):
            await self._loader(label).unload()

    async def _load(self, label: str, *, reload: bool) -> None:
        loader = self._loader(label)
        await loader.enable()
        job = await self._launchctl().job(Target(DOMAIN, label))
        ends_by_itself = label == WATCHDOG_LABEL and job is not None
        if reload or not (ends_by_itself or (job is not None and job.pid is not None)):
            await loader.load(reload=reload)

    async def _wait_for_process(self) -> int:
        launchctl, target = self._launchctl(), Target(DOMAIN, AGENT_LABEL)
        ends = self._clock.monotonic() + UP_S
        while True:
            job = await launchctl.job(target)
            pid = job.pid if job is not None else None
            if pid is not None and await asyncio.to_thread(Sighting.of, pid) is not None:
                return pid
            if self._clock.monotonic() >= ends:
                state = "not loaded" if job is None else f"{job.state}, last exit {job.last_exit}"
                raise UnavailableError(f"{target} did not come up: {state}")
            await self._clock.sleep(POLL_S)

    async def _start_unit(self, *, restart: bool) -> int:
        systemctl = self._systemctl()
        await systemctl.change("daemon-reload")
        await systemctl.change("enable", AGENT_UNIT)
        await systemctl.change("restart" if restart else "start", AGENT_UNIT)
        ends = self._clock.monotonic() + UP_S
        while True:
            shown = await systemctl.show(AGENT_UNIT)
            if shown.active == "active" and shown.main_pid is not None:
                return shown.main_pid
            if self._clock.monotonic() >= ends:
                raise UnavailableError(f"{AGENT_UNIT} did not come up: {shown.active} {shown.sub}")
            await self._clock.sleep(POLL_S)

    async def _stop_unit(self) -> None:
        systemctl = self._systemctl()
        if (await systemctl.show(AGENT_UNIT)).load == "not-found":
            return
        await systemctl.change("disable", AGENT_UNIT)
        await systemctl.change("stop", AGENT_UNIT)
        ends = self._clock.monotonic() + UP_S * 2
        while not (shown := await systemctl.show(AGENT_UNIT)).over:
            if self._clock.monotonic() >= ends:
                raise UnavailableError(f"{AGENT_UNIT} does not end: {shown.active} {shown.sub}")
            await self._clock.sleep(POLL_S)

    def _plist(self, label: str) -> Path:
        return self._host.daemons / f"{label}.plist"

    def _loader(self, label: str) -> Loader:
        target = Target(DOMAIN, label)
        return Loader(target, self._plist(label), self._launchctl(), self._clock)

    def _launchctl(self) -> Launchctl:
        return Launchctl(_need(self._host.launchctl, "launchctl"))

    def _systemctl(self) -> Systemctl:
        return Systemctl(_need(self._host.systemctl, "systemctl"))


def _need(program: Path | None, name: str) -> Path:
    if program is None:
        raise RollcallError(f"this host has no {name}")
    return program


def _write(file: File) -> bool:
    """Whether anything had to be written. Blocking."""
    if file.path.is_file() and file.path.read_bytes() == file.data:
        file.path.chmod(file.mode)
        return False
    if not file.path.parent.is_dir():
        file.path.parent.mkdir(parents=True)
        file.path.parent.chmod(0o755)
    write_durable(file.path, file.data, mode=file.mode)
    return True
