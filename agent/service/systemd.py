"""The gateway as a service of systemd, on Linux hosts. The unit file is ours and leads through `current`.

A unit that is stopped is disabled as well, so that a reboot in the middle of an upgrade does not start it.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from agent.service.base import ServiceSpec
from agent.service.jobs import GATEWAY_EXIT_S
from agent.service.processes import rotate
from agent.service.systemctl import ShownUnit, Systemctl
from agent.service.units import UNIT_MODE, Unit
from shared.errors import ConflictError
from shared.failpoint import fail_point
from shared.untrusted import Folder


class SystemdSupervisor:
    """Implements Supervisor. `name` is the unit's, with `.service`."""

    def __init__(self, name: str, folder: Path, systemctl: Systemctl) -> None:
        self.name, self._folder, self._systemctl = name, folder, systemctl

    def definition(self, spec: ServiceSpec) -> str:
        return hashlib.sha256(self._unit(spec)).hexdigest()

    async def main_pid(self) -> int | None:
        return (await self._show()).main_pid

    async def launch(self, spec: ServiceSpec, *, reload: bool, after_stop: bool) -> None:
        """Raises ConflictError where the unit is masked, CommandError where systemd refuses."""
        await asyncio.to_thread(rotate, spec.log)
        written = await asyncio.to_thread(self._write, self._unit(spec))
        if written or reload:
            await self._systemctl.change("daemon-reload")
        if (await self._show()).masked:
            raise ConflictError(
                f"{self.name} is masked: somebody has forbidden it",
                remedy=f"systemctl unmask {self.name}",
            )
        fail_point("systemd.enable")
        await self._systemctl.change("enable", self.name)
        await self._systemctl.change("restart", self.name)
        fail_point("systemd.launched")

    async def end(self) -> None:
        shown = await self._show()
        if shown.load == "not-found":
            return
        fail_point("systemd.disable")
        await self._systemctl.change("disable", self.name)
        fail_point("systemd.stop")
        await self._systemctl.change("stop", self.name)

    async def ended(self) -> bool:
        return (await self._show()).over

    async def abandoned(self) -> bool:
        shown = await self._show()
        return shown.over and not shown.masked and shown.file_state != "disabled"

    async def explain(self) -> str:
        shown = await self._show()
        return (
            f"systemd says {shown.active} ({shown.sub}), result {shown.result}, exit {shown.status}"
        )

    async def _show(self) -> ShownUnit:
        return await self._systemctl.show(self.name)

    def _unit(self, spec: ServiceSpec) -> bytes:
        return Unit(
            "OpenClaw gateway, kept by Rollcall",
            spec.argv,
            spec.log,
            env=spec.env,
            cwd=spec.cwd,
            exit_timeout_s=GATEWAY_EXIT_S,
            user=spec.account.name if spec.account is not None else None,
        ).render()

    def _write(self, wanted: bytes) -> bool:
        """Whether the file had to be written. Blocking."""
        path = self._folder / self.name
        if path.is_file() and path.read_bytes() == wanted:
            return False
        with Folder.own(self._folder) as folder:
            folder.replace(path.name, wanted, mode=UNIT_MODE)
        return True
