"""Whole folders, copied with owners, modes and links; a clone where the file system can (APFS, reflink)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from shared.command import CHILD_OF
from shared.errors import CommandError
from shared.untrusted import Folder, open_regular

COPY_TIMEOUT_S = 3600.0
SMALL = 4 << 20
"""Bytes: where a clone saves nothing worth a process."""
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


def copy_names(source: Folder, names: list[str], target: Folder, home: str) -> None:
    """Entries of an open folder, and what is below them, to another in which none of them is. Small files are
    copied here: starting a program takes longer than they do."""
    others = [name for name in names if not _copy_small(source, name, target)]
    for start in range(0, len(others), AT_ONCE):
        some = [f"./{name}" for name in others[start : start + AT_ONCE]]
        _run(source, [*_cp(), *some, f"{target.path}/"], str(source.path), home)


def _copy_small(source: Folder, name: str, target: Folder) -> bool:
    """Content, mode, owner and times of a small regular file; False for anything else."""
    info = os.stat(name, dir_fd=source.fd, follow_symlinks=False)
    if not stat.S_ISREG(info.st_mode) or info.st_size > SMALL:
        return False
    with open_regular(name, source.fd, source.path / name) as file:
        data = file.read()
    fd = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target.fd
    )
    with os.fdopen(fd, "wb") as copy:
        copy.write(data)
        copy.flush()
        if os.geteuid() == 0:
            os.fchown(copy.fileno(), info.st_uid, info.st_gid)
        os.fchmod(copy.fileno(), stat.S_IMODE(info.st_mode))
        os.utime(copy.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))
    return True


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
