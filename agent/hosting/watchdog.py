"""Brings the agent's own job back when launchd has lost it. Runs, looks, and ends; a job of its own starts it
every minute, because `KeepAlive` has failed to relaunch (MACOS.md, 6).

Only the standard library and the reader of `launchctl print`: what is wrong with the agent should not be wrong
with this too.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.service.printed import NO_SERVICE, PrintedJob, read_job

CALL_TIMEOUT_S = 20.0
BRING_BACK_S = 40.0
PAUSE_S = 0.5
DOMAIN = "system"


@dataclass(frozen=True)
class Watched:
    """What was found and done: `running`, `scheduled` (launchd's throttle), `started`, `not-installed`, or
    `failed`."""

    action: str
    detail: str
    pid: int | None = None

    @property
    def well(self) -> bool:
        return self.action != "failed"


class Watchdog:
    def __init__(
        self,
        launchctl: Path,
        label: str,
        plist: Path,
        *,
        domain: str = DOMAIN,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._launchctl, self._target = launchctl, f"{domain}/{label}"
        self._domain, self._plist, self._sleep = domain, plist, sleep

    def look_after(self) -> Watched:
        """Blocking, for BRING_BACK_S and one call at most."""
        if not self._plist.exists():
            return Watched("not-installed", f"{self._plist} does not exist")
        try:
            job = self._job()
            if job is not None and job.pid is not None:
                return Watched("running", job.state, job.pid)
            if job is not None and job.scheduled:
                return Watched("scheduled", "launchd starts it when its throttle is over")
            return self._bring_back("it was not loaded" if job is None else f"it was {job.state}")
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return Watched("failed", f"launchctl: {error}")

    def _bring_back(self, why: str) -> Watched:
        ends, said = time.monotonic() + BRING_BACK_S, ""
        self._call("enable", self._target)
        while time.monotonic() < ends:
            job = self._job()
            if job is not None and job.pid is not None:
                return Watched("started", why, job.pid)
            if job is None:
                done = self._call("bootstrap", self._domain, str(self._plist))
            else:
                done = self._call("kickstart", self._target)
            said = done.stderr.strip().partition("\n")[0] or said
            self._sleep(PAUSE_S)
        return Watched("failed", f"{why}, and launchd does not start it: {said}")

    def _job(self) -> PrintedJob | None:
        """Raises ValueError for an answer that says neither what it is nor that there is none."""
        done = self._call("print", self._target)
        if done.returncode == NO_SERVICE or "Could not find service" in done.stderr:
            return None
        job = read_job(done.stdout) if done.returncode == 0 else None
        if job is None:
            raise ValueError(f"print {self._target} ended with {done.returncode}: {done.stderr}")
        return job

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._launchctl), *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CALL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def note(folder: Path, watched: Watched) -> None:
    """Into a rotated log of its own, when there was anything to do."""
    if watched.action in ("running", "not-installed") or not folder.is_dir():
        return
    handler = logging.handlers.RotatingFileHandler(
        folder / "watchdog.log", maxBytes=1 << 20, backupCount=1, encoding="utf-8"
    )
    line = {"at": time.time(), "action": watched.action, "detail": watched.detail}
    handler.emit(logging.makeLogRecord({"msg": json.dumps({**line, "pid": watched.pid})}))
    handler.close()
