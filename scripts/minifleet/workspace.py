"""A temporary place for one fleet, and the certainty that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from shared.command import CHILD_OF

PREFIX = "rollcall-fleet-"
MARK = "ROLLCALL_MINIFLEET"
GRACE_S = 3.0


class Workspace:
    """A folder below the system's temporary one. Its janitor outlives us: if this process dies in any
    way at all, the janitor ends every process that works in the folder and removes it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self.scratch = self.root / "tmp"
        self.scratch.mkdir()
        self._janitor = subprocess.Popen(
            [sys.executable, "-m", "scripts.minifleet.janitor", str(self.root)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],
        )

    def environment(self) -> dict[str, str]:
        """For everything that is started here: temporary files land in the workspace too."""
        return {
            **os.environ,
            MARK: str(self.root),
            "TMPDIR": str(self.scratch),
            "PYTHONUNBUFFERED": "1",
        }

    def remove(self) -> None:
        sweep(self.root)
        if self._janitor.stdin is not None:
            with contextlib.suppress(OSError):
                self._janitor.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._janitor.wait(timeout=10)


def sweep(root: Path) -> None:
    """End every process that works in `root`, then remove it. Again, if something new came up."""
    for _ in range(5):
        found = processes_in(root)
        if not found:
            break
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(found, timeout=GRACE_S)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=GRACE_S)
    for _ in range(5):
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            return
        time.sleep(0.2)


def processes_in(root: Path) -> list[psutil.Process]:
    """Processes that were started for this workspace: our mark, an agent's mark, or a HOME in it. A
    shell or an editor that somebody opened there has none of them."""
    mark, found = str(root), []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            env = process.environ()
            if any(env.get(name, "").startswith(mark) for name in (MARK, CHILD_OF, "HOME")):
                found.append(process)
    return found
