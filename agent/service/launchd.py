"""The gateway as a job of launchd, driven through `launchctl` (MACOS.md, 4 to 9; OPENCLAW.md, 4).

Either the job is ours, and its plist is written here; or it is OpenClaw's own LaunchAgent, which OpenClaw
writes (`gateway install --force --wrapper …`) and which is only driven here. Both plists lead through
`current`, so that an upgrade changes a link and no plist.

A job that is stopped is disabled as well: otherwise a reboot in the middle of an upgrade would start it
from a tree and a state that are being changed. Every start enables it first.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import plistlib
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from agent.service.base import ServiceSpec
from agent.service.jobs import gateway_job
from agent.service.launchctl import Launchctl, NoSessionError, Target
from agent.service.loader import Loader
from agent.service.processes import rotate
from shared.account import Account
from shared.clock import Clock
from shared.errors import ConfigError
from shared.failpoint import fail_point
from shared.plist import PLIST_MODE, Job
from shared.scratch import give
from shared.untrusted import Folder

log = structlog.get_logger()

MAX_PLIST_BYTES = 1 << 20
OPENCLAW_PREFIX = "ai.openclaw."


@dataclass(frozen=True)
class LaunchdJob:
    """Which job it is. `logs`: a folder for what the gateway prints, where it runs as another account than
    the agent and so cannot reach the agent's."""

    target: Target
    plist: Path
    logs: Path

    @property
    def ours(self) -> bool:
        return not self.target.label.startswith(OPENCLAW_PREFIX)


class LaunchdSupervisor:
    """Implements Supervisor."""

    def __init__(self, job: LaunchdJob, launchctl: Launchctl, clock: Clock) -> None:
        self._job, self._launchctl = job, launchctl
        self._target = job.target
        self._loader = Loader(job.target, job.plist, launchctl, clock)
        self.name = str(job.target)

    def definition(self, spec: ServiceSpec) -> str:
        """OpenClaw's plist is OpenClaw's affair: nothing of it is compared."""
        if not self._job.ours:
            return "openclaw"
        return hashlib.sha256(self._wanted(spec).render()).hexdigest()

    async def main_pid(self) -> int | None:
        try:
            job = await self._launchctl.job(self._target)
        except NoSessionError:
            return None
        return job.pid if job is not None else None

    async def launch(self, spec: ServiceSpec, *, reload: bool, after_stop: bool) -> None:
        if self._job.ours:
            written = await asyncio.to_thread(self._write, spec)
            reload = reload or written
        else:
            reload = False
        await asyncio.to_thread(check_plist, self._job)
        if not after_stop and await self._launchctl.disabled(self._target):
            log.warning("somebody disabled the gateway's job; enabling it", job=self.name)
        fail_point("launchd.enable")
        await self._loader.enable()
        await self._loader.load(reload=reload)
        fail_point("launchd.launched")

    async def end(self) -> None:
        fail_point("launchd.disable")
        answer = await self._launchctl.disable(self._target)
        if not answer.ok:
            log.warning("a restart would start the gateway", job=self.name, reason=answer.said)
        fail_point("launchd.bootout")
        try:
            answer = await self._launchctl.bootout(self._target)
        except NoSessionError:
            return
        log.info("bootout", job=self.name, code=answer.code)

    async def ended(self) -> bool:
        """Without a session there is no job in it either."""
        try:
            return await self._launchctl.job(self._target) is None
        except NoSessionError:
            return True

    async def abandoned(self) -> bool:
        """False where there is no session: launchd loads the job when its user logs in."""
        try:
            job = await self._launchctl.job(self._target)
        except NoSessionError:
            return False
        away = job is None or (job.pid is None and not job.scheduled)
        return away and not await self._launchctl.disabled(self._target)

    async def explain(self) -> str:
        job = await self._launchctl.job(self._target)
        if job is None:
            return "launchd has not loaded it"
        return f"launchd says {job.state}, started {job.runs} times, last exit {job.last_exit}"

    def _wanted(self, spec: ServiceSpec) -> Job:
        if spec.account is not None:
            spec = replace(spec, log=self._job.logs / spec.log.name)
        return gateway_job(self._target.label, spec, in_system_domain=self._target.uid is None)

    def _write(self, spec: ServiceSpec) -> bool:
        """Whether the plist had to be written. Blocking."""
        job, plist = self._wanted(spec), self._job.plist
        rotate(job.printed)
        if spec.account is not None:
            _make_log(job.printed, spec.account)
        _make_folder(plist.parent)
        with Folder.guarded(plist.parent) as folder:
            if _holds(plist, job.render(), self._target.uid):
                return False
            plist.unlink(missing_ok=True)
            folder.replace(plist.name, job.render(), mode=PLIST_MODE)
        return True


def _make_folder(folder: Path) -> None:
    """`~/Library/LaunchAgents` is missing on a new Mac; its owner is that of the folder above."""
    if folder.is_dir():
        return
    with Folder.guarded(folder.parent) as above:
        info = os.fstat(above.fd)
        os.mkdir(folder.name, 0o755, dir_fd=above.fd)
        os.chown(folder.name, info.st_uid, -1, dir_fd=above.fd, follow_symlinks=False)


def _make_log(path: Path, account: Account) -> None:
    """A file of the account's in a folder that it cannot change, so that launchd may open it as whomever it
    likes: no link can stand in its place."""
    path.parent.mkdir(mode=0o711, exist_ok=True)
    path.parent.chmod(0o711)
    if not path.exists():
        path.touch(mode=0o600)
        give(path, account)


def _holds(plist: Path, wanted: bytes, uid: int | None) -> bool:
    try:
        return plist.read_bytes() == wanted and _trusted(plist.lstat(), uid)
    except OSError:
        return False


def _trusted(info: Any, uid: int | None) -> bool:
    return (
        stat.S_ISREG(info.st_mode)
        and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and info.st_uid in (0, uid)
    )


def check_plist(job: LaunchdJob) -> None:
    """Whether launchd would take it: it says 5 to all of these and does not say which. Blocking. Raises
    ConfigError."""
    path, uid = job.plist, job.target.uid
    try:
        info = path.lstat()
        value = read_plist(path)
    except FileNotFoundError:
        how = "let OpenClaw write it: openclaw gateway install --force --wrapper FILE"
        raise ConfigError(f"{path} does not exist", remedy=None if job.ours else how) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not _trusted(info, uid):
        owner = "root" if uid is None else f"root or uid {uid}"
        raise ConfigError(
            f"launchd would refuse {path}: it must be a file of {owner} that nobody else may write",
            remedy=f"chown root {path}; chmod 644 {path}",
        )
    if value.get("Label") != job.target.label:
        raise ConfigError(f"{path} is the plist of {value.get('Label')!r}, not of {job.target}")


def read_plist(path: Path) -> dict[str, Any]:
    """Blocking. Raises OSError, and ConfigError for what is no property list."""
    with path.open("rb") as file:
        raw = file.read(MAX_PLIST_BYTES)
    try:
        value = plistlib.loads(raw)
    except Exception as error:  # plistlib lets through what its XML and binary parsers raise
        raise ConfigError(f"{path} is not a property list: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a property list of a job")
    return value
