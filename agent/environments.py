"""The agent's own versions on disk: `versions/<v>/` beside each other, `active` the one in use.

The launcher reads and writes the same files and is never upgraded, so their form is fixed there
(launcher.py). Everything here blocks; callers on the loop use a thread.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from agent import launcher
from agent.layout import Layout
from shared.durable import switch_link, sync_directory, write_durable
from shared.errors import BadInputError
from shared.failpoint import fail_point
from shared.report import Target
from shared.wire import Reason, Sha256, Wire

W = TypeVar("W", bound=Wire)

LAUNCHED = "ROLLCALL_LAUNCHED"
"""Set by the launcher to the version that it starts."""
LONGEST_SHEBANG = 120
OLD = ".old-"


class Built(Wire):
    """`COMPLETE`: every file is there and durable, installed from the wheel with this hash."""

    version: str
    sha256: Sha256
    at: float


class Healthy(Wire):
    at: float


class GivenUp(Wire):
    """`EXIT`: why a version ended itself before it was healthy."""

    reason: Reason


class Failed(Wire):
    """`<v>.failed.json`, by the launcher. `exit` is what the version left to be said of its end."""

    version: str
    sha256: Sha256 | None = None
    why: Reason
    at: float = 0
    exit: Reason | None = None

    @property
    def reason(self) -> str:
        return f"{self.why}: {self.exit}" if self.exit else self.why


class Move(Wire):
    """Written before `active` moves for an order, removed when the outcome is known: by the new agent once
    it is healthy, or by the old one when it finds itself back. `served` is whether the gateway did."""

    version: str
    before: str
    target: Target
    label: str
    served: bool


class State(StrEnum):
    ACTIVE = "active"
    GOOD = "last good"
    KEPT = "kept"
    UNFINISHED = "unfinished"
    FAILED = "failed"


@dataclass(frozen=True)
class Listed:
    version: str
    state: State
    healthy: bool
    why: str = ""


def base_python() -> Path:
    """The interpreter below this environment: what a new one, and the launcher, are made with."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def launched_version(layout: Layout, environ: Mapping[str, str], prefix: str) -> str | None:
    """The version that a process runs as, by its environment and its `sys.prefix`, if the launcher of this
    home started it."""
    version = environ.get(LAUNCHED)
    mine = version is not None and Path(prefix) == layout.versions.absolute() / version
    return version if mine else None


def write_launcher(home: Path, python: Path) -> Path:
    """A copy of launcher.py that `python` runs, isolated from the environment and from site-packages. An
    interpreter whose path no `#!` line can hold goes through sh, as pip does it for scripts."""
    line = f"#!{python} -IS\n"
    if " " in str(python) or len(line) > LONGEST_SHEBANG:
        line = f"""#!/bin/sh\n'''exec' "{python}" -IS "$0" "$@"\n' ''' \\\n"""
    text = line + Path(launcher.__file__).read_text(encoding="utf-8")
    path = home / "launcher"
    write_durable(path, text.encode(), mode=0o755)
    return path


class Environments:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.root = layout.versions

    def folder(self, version: str) -> Path:
        return self.root / version

    def python(self, version: str) -> Path:
        return self.folder(version) / "bin" / "python"

    @property
    def active(self) -> str | None:
        return launcher.named(self._layout.active)

    @property
    def good(self) -> str | None:
        return launcher.named(self.root / "good")

    def built(self, version: str) -> Built | None:
        return _read(Built, self.folder(version) / "COMPLETE")

    def is_healthy(self, version: str) -> bool:
        return _read(Healthy, self.folder(version) / "HEALTHY") is not None

    def failed(self, version: str) -> Failed | None:
        return _read(Failed, self._failure(version))

    def move(self) -> Move | None:
        return _read(Move, self.root / "move.json")

    def complete(self, version: str, sha256: str, at: float) -> None:
        """The last act of a build: from here on the launcher would start it."""
        os.sync()
        mark = Built(version=version, sha256=sha256, at=at)
        write_durable(self.folder(version) / "COMPLETE", mark.canonical())

    def report_healthy(self, version: str, at: float) -> None:
        write_durable(self.folder(version) / "HEALTHY", Healthy(at=at).canonical())

    def leave_reason(self, version: str, reason: str) -> None:
        write_durable(self.folder(version) / "EXIT", GivenUp(reason=reason).canonical())

    def begin_move(self, move: Move) -> None:
        """Durable first, then the links: whoever starts next knows what was meant."""
        write_durable(self.root / "move.json", move.canonical())
        self.activate(move.version)

    def end_move(self) -> None:
        (self.root / "move.json").unlink(missing_ok=True)
        sync_directory(self.root)

    def activate(self, version: str) -> None:
        """`active` names a built version from here on; what was active and healthy is what the launcher
        goes back to. A count or a record of an earlier build under this number is not about this one."""
        before = self.active
        if before is not None and before != version and self.is_healthy(before):
            switch_link(self.root / "good", Path(before))
        for stale in (self.root / "starts.json", self._failure(version)):
            stale.unlink(missing_ok=True)
        sync_directory(self.root)
        switch_link(self._layout.active, Path("versions") / version)

    def clear(self, version: str) -> None:
        """Away with what stands under this number: renamed first, so that half of it is never met."""
        for leftover in self.root.glob(f"{OLD}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = self.folder(version)
        if folder.exists():
            aside = self.root / f"{OLD}{version}"
            folder.rename(aside)
            sync_directory(self.root)
            fail_point("agent.set-aside")
            shutil.rmtree(aside)

    def prune(self) -> list[str]:
        """Remove all but the active version and the one to go back to. Returns what was removed."""
        kept = {self.active, self.good}
        gone = [name for name in self._names() if name not in kept]
        for name in gone:
            self.clear(name)
        return gone

    def listing(self) -> list[Listed]:
        """Every version that is here or has failed here, in the order of their numbers."""
        failures = [
            path.name.removesuffix(".failed.json") for path in self.root.glob("*.failed.json")
        ]
        names = sorted({*self._names(), *failures}, key=_number)
        return [self._listed(name) for name in names]

    def _listed(self, version: str) -> Listed:
        failed, healthy = self.failed(version), self.is_healthy(version)
        if failed is not None:
            return Listed(version, State.FAILED, healthy, failed.reason)
        if self.built(version) is None:
            return Listed(version, State.UNFINISHED, healthy)
        if version == self.active:
            return Listed(version, State.ACTIVE, healthy)
        return Listed(version, State.GOOD if version == self.good else State.KEPT, healthy)

    def _names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        found = [path for path in self.root.iterdir() if launcher.VERSION.fullmatch(path.name)]
        return [path.name for path in found if stat.S_ISDIR(path.lstat().st_mode)]

    def _failure(self, version: str) -> Path:
        return self.root / f"{version}.failed.json"


def _read(model: type[W], path: Path) -> W | None:
    """None for what is missing or damaged."""
    try:
        return model.from_bytes(path.read_bytes())
    except (OSError, BadInputError):
        return None


def _number(version: str) -> list[tuple[int, str]]:
    """By number where there are numbers: 0.10 after 0.9."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"[.+-]", version)]
