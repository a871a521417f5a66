"""launchd's property lists: one builder for every job of ours (launchd.plist(5); MACOS.md, 6, 7 and 9).

A job's plist names things that never change: a launcher that is never replaced, links that are switched. So it is
written once, and an upgrade does not touch it.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from shared.command import SYSTEM_PATH
from shared.errors import ConfigError

PREFIX = "io.rollcall."
PLIST_MODE = 0o644
"""launchd does not take what others may write, and OpenClaw met failures with 0600 (OPENCLAW.md, 6.10)."""
UMASK = 0o077
FILES = 8192
"""Open files: launchd's own limit is 256."""


class ProcessType(StrEnum):
    """How much launchd slows a job down when the machine is busy: not at all, or first of all."""

    INTERACTIVE = "Interactive"
    BACKGROUND = "Background"


@dataclass(frozen=True)
class Job:
    """One job. It is started at load and kept alive, unless `every_s` makes it one that runs and ends."""

    label: str
    arguments: tuple[str, ...]
    """The first is what Login Items shows and what must never be replaced: a launcher by its own name."""
    printed: Path
    """For what a process prints before it logs to files of its own, which it rotates; nobody rotates
    this one."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = Path("/")
    every_s: int | None = None
    exit_timeout_s: int = 20
    throttle_s: int = 10
    process_type: ProcessType = ProcessType.INTERACTIVE
    user: str | None = None
    """Whom it runs as in the system domain, when not as root."""

    def plist(self) -> dict[str, Any]:
        """AbandonProcessGroup stays off: what must outlive a job leads a session of its own, and the rest
        should end with it."""
        started: dict[str, Any] = (
            {"KeepAlive": True} if self.every_s is None else {"StartInterval": self.every_s}
        )
        whose = {} if self.user is None else {"UserName": self.user, "InitGroups": True}
        limits = {"NumberOfFiles": FILES}
        return {
            "Label": self.label,
            "ProgramArguments": list(self.arguments),
            "EnvironmentVariables": {"PATH": SYSTEM_PATH, **self.env},
            "WorkingDirectory": str(self.cwd),
            "RunAtLoad": True,
            **started,
            **whose,
            "ThrottleInterval": self.throttle_s,
            "ExitTimeOut": self.exit_timeout_s,
            "ProcessType": str(self.process_type),
            "SoftResourceLimits": limits,
            "HardResourceLimits": limits,
            "Umask": UMASK,
            "StandardOutPath": str(self.printed),
            "StandardErrorPath": str(self.printed),
        }

    def render(self) -> bytes:
        """The XML form. Raises ConfigError for text that it cannot hold."""
        try:
            rendered = plistlib.dumps(self.plist(), sort_keys=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.label}: cannot be a property list: {error}") from error
        if plistlib.loads(rendered) != self.plist():
            raise ConfigError(f"{self.label}: cannot be a property list: it would change the text")
        return rendered
