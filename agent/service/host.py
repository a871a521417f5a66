"""Where a host keeps its service manager's programs and files; tests name others."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

DAEMONS = Path("/Library/LaunchDaemons")
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Host:
    platform: str
    """As `sys.platform` says it."""
    launchctl: Path | None
    systemctl: Path | None
    daemons: Path = DAEMONS
    units: Path = UNITS
    euid: int = 0

    @classmethod
    def here(cls) -> Host:
        return cls(sys.platform, _which("launchctl"), _which("systemctl"), euid=os.geteuid())

    @property
    def is_mac(self) -> bool:
        return self.platform == "darwin"


def _which(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found is not None else None
