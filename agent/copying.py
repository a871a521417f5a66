"""Whole folders, copied with owners, modes and links; a clone where the file system can (APFS, reflink)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared.command import CHILD_OF
from shared.errors import CommandError
from shared.untrusted import Folder

COPY_TIMEOUT_S = 3600.0
AT_ONCE = 200
"""Names in one call: far below what a command line may hold."""
_IN_FOLDER = "import os, sys; os.fchdir(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
"""cp takes paths, and the name of a folder may be another's by the time cp gets there. Its working
directory cannot: it is entered by descriptor."""


def copy_out(source: Folder, target: Path, home: str) -> None:
    """What is in an open folder, and the folder's own mode and owner, to `target`, which is new."""
    _copy(source, ".", str(target), home)


def copy_in(source: Path, target: Folder, name: str, home: str) -> None:
    """`source` to a new `name` in an open folder."""
    _copy(target, str(source), name, home)


def copy_names(source: Folder, names: list[str], target: Path, home: str) -> None:
    """Entries of an open folder, and what is below them, to a folder that is there."""
    for start in range(0, len(names), AT_ONCE):
        some = [f"./{name}" for name in names[start : start + AT_ONCE]]
        _run(source, [*_cp(), *some, f"{target}/"], str(source.path), home)


def _copy(inside: Folder, source: str, target: str, home: str) -> None:
    what = str(inside.path) if source == "." else source
    _run(inside, [*_cp(), source, target], what, home)


def _cp() -> list[str]:
    return ["/bin/cp", "-c" if sys.platform == "darwin" else "--reflink=auto", "-pPR"]


def _run(inside: Folder, cp: list[str], what: str, home: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _IN_FOLDER, str(inside.fd), *cp],
            capture_output=True,
            timeout=COPY_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={CHILD_OF: home},
            pass_fds=[inside.fd],
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"copying {what} failed: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CommandError(f"copying {what} failed: {said[-1] if said else done.returncode}")
