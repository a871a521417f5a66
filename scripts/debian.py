"""Programs of others that tests and benchmarks run for real: HAProxy, promtool, serf, node-exporter."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from shared.durable import wait_for_lock
from shared.errors import RollcallError
from shared.terminal import EXIT_MISSING, say


class MissingError(RollcallError):
    """A program that is not here and cannot be installed."""

    code = "missing"
    exit_code = EXIT_MISSING


LOCK = Path("/run/rollcall-debian.lock")
"""Only root can install. apt waits for nobody who reads its lists: of two that begin together one would fail."""


def need(program: str, package: str) -> None:
    """Install it from Debian's packages where that is allowed. Raises MissingError elsewhere."""
    if shutil.which(program):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        with wait_for_lock(LOCK):
            if shutil.which(program) is None:
                _install(package)
    if shutil.which(program) is None:
        raise MissingError(f"{program} is not here", remedy=f"install the Debian package {package}")


def _install(package: str) -> None:
    say(f"installing {package} from Debian's packages")
    for argv in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
    ):
        subprocess.run(
            argv,
            check=False,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
