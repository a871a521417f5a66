"""One job of the emulated launchd: a process that is started, restarted, stopped and removed."""

from __future__ import annotations

import contextlib
import os
import plistlib
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THROTTLE_S, EXIT_TIMEOUT_S = 10, 20


@dataclass
class Settings:
    """What a test may turn, in `settings.json` of the emulator's folder; read again at each command."""

    sessions: list[int] = field(default_factory=lambda: [os.getuid()])
    """Users who are logged in at the screen: only they have a `gui/<uid>`."""
    throttle_scale: float = 0.05
    exit_scale: float = 1.0
    linger_s: float = 0.3
    """How long a label is still taken after its process has gone."""
    shown_while_lingering: bool = True
    """Whether `print` shows the job during that time; both have been seen."""
    busy_code: int = 5
    loaded_code: int = 37
    bootout_code: int = 0
    """36, Operation now in progress, has been seen for a bootout that went well."""
    needs_asuser: bool = False
    refused_bootstraps: int = 0
    """So many bootstraps fail with 5 for no reason that `print` would show."""


class BadPlistError(Exception):
    pass


def load_plist(path: Path, owner: int) -> dict[str, Any]:
    """What launchd would take: its own or the domain's user's file, which nobody else may write."""
    info = path.stat()
    if info.st_uid not in (0, owner) or info.st_mode & 0o022 or not stat.S_ISREG(info.st_mode):
        raise BadPlistError(f"{path}: Path had bad ownership/permissions")
    try:
        value: dict[str, Any] = plistlib.loads(path.read_bytes())
    except (plistlib.InvalidFileException, ValueError) as error:
        raise BadPlistError(f"{path}: not a property list: {error}") from error
    except Exception as error:
        raise BadPlistError(f"{path}: {error}") from error
    if not value.get("Label") or not (value.get("ProgramArguments") or value.get("Program")):
        raise BadPlistError(f"{path}: no Label or no ProgramArguments")
    return value


class Job:
    def __init__(
        self,
        domain: str,
        path: Path,
        plist: dict[str, Any],
        settings: Settings,
        log: Callable[[str], None],
    ) -> None:
        self.domain, self.path, self.plist = domain, path, plist
        self.label: str = plist["Label"]
        self._settings, self._log = settings, log
        self.process: subprocess.Popen[bytes] | None = None
        self.runs = 0
        self.last_exit: int | None = None
        self._started = 0.0
        self.next_start: float | None = None
        self._kill_at: float | None = None
        self.removing = False
        self._gone_at: float | None = None
        self._again = False

    @property
    def arguments(self) -> list[str]:
        return list(self.plist.get("ProgramArguments") or [self.plist["Program"]])

    @property
    def state(self) -> str:
        if self.process is not None:
            return "SIGTERMed" if self._kill_at is not None else "running"
        return "spawn scheduled" if self.next_start is not None else "not running"

    @property
    def lingers(self) -> bool:
        return self.removing and self.process is None

    @property
    def gone(self) -> bool:
        return self._gone_at is not None and self._gone_at == 0

    def load(self, now: float) -> None:
        if self.plist.get("RunAtLoad") or self.plist.get("KeepAlive") is True:
            self.spawn(now)
        elif "StartInterval" in self.plist:
            self.next_start = now + self._interval()

    def spawn(self, now: float) -> None:
        self.next_start = self._kill_at = None
        self._again = False
        self._started = now
        self.runs += 1
        try:
            self.process = self._popen()
        except OSError as error:
            self._log(f"{self.label}: cannot spawn: {error}")
            self.last_exit = 78
            self._plan_next(now)
            return
        self._log(f"{self.label}: spawned pid {self.process.pid}: {self.arguments}")

    def terminate(self, now: float) -> None:
        if self.process is not None and self._kill_at is None:
            self._signal(signal.SIGTERM)
            limit = self.plist.get("ExitTimeOut", EXIT_TIMEOUT_S) * self._settings.exit_scale
            self._kill_at = now + limit

    def kickstart(self, now: float, kill: bool) -> None:
        if self.process is None:
            self.spawn(now)
        elif kill:
            self._again = True
            self.terminate(now)

    def remove(self, now: float) -> None:
        self.removing, self.next_start = True, None
        if self.process is None:
            self._gone_at = now + self._settings.linger_s
        else:
            self.terminate(now)

    def tick(self, now: float) -> None:
        if self.process is not None:
            self._watch(self.process, now)
        if self.process is None and self.next_start is not None and now >= self.next_start:
            self.spawn(now)
        if self.removing and self._gone_at is not None and now >= self._gone_at:
            self._gone_at = 0

    def _watch(self, process: subprocess.Popen[bytes], now: float) -> None:
        code = process.poll()
        if code is None:
            if self._kill_at is not None and now >= self._kill_at:
                self._log(f"{self.label}: SIGKILL to {process.pid} after ExitTimeOut")
                self._signal(signal.SIGKILL)
                self._kill_at = now + 1
            return
        self._log(f"{self.label}: pid {process.pid} ended with {code}")
        if not self.plist.get("AbandonProcessGroup"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        self.process, self.last_exit = None, code
        self._kill_at = None
        if self.removing:
            self._gone_at = now + self._settings.linger_s
        elif self._again:
            self.spawn(now)
        else:
            self._plan_next(now)

    def _plan_next(self, now: float) -> None:
        if self.plist.get("KeepAlive") is True:
            throttle = self.plist.get("ThrottleInterval", THROTTLE_S)
            self.next_start = max(now, self._started + throttle * self._settings.throttle_scale)
        elif "StartInterval" in self.plist:
            self.next_start = self._started + self._interval()

    def _interval(self) -> float:
        return float(self.plist["StartInterval"]) * self._settings.throttle_scale

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _popen(self) -> subprocess.Popen[bytes]:
        plist = self.plist
        identity: dict[str, Any] = {}
        uid = self._uid()
        home = "/var/root"
        if uid is not None:
            entry = pwd.getpwuid(uid)
            home = entry.pw_dir
            if uid != os.geteuid():
                groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
                identity = {"user": uid, "group": entry.pw_gid, "extra_groups": groups}
        env = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": home,
            "XPC_SERVICE_NAME": self.label,
            **plist.get("EnvironmentVariables", {}),
        }
        with (
            open(plist.get("StandardOutPath", os.devnull), "ab") as out,  # noqa: PTH123
            open(plist.get("StandardErrorPath", os.devnull), "ab") as err,  # noqa: PTH123
        ):
            return subprocess.Popen(
                self.arguments,
                env=env,
                cwd=plist.get("WorkingDirectory", "/"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                umask=plist.get("Umask", 0o022),
                **identity,
            )

    def _uid(self) -> int | None:
        if self.domain == "system":
            name = self.plist.get("UserName")
            return None if name is None else pwd.getpwnam(name).pw_uid
        return int(self.domain.partition("/")[2])
