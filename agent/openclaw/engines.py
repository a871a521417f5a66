"""Which Node fits which range, as npm's semver has judged it: the same file gives the same answer, and to ask costs a
process each time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """What changes with the file that a path leads to."""

    path: Path
    inode: int
    bytes: int
    changed_ns: int


def stamp_of(node: Path) -> Stamp | None:
    """None for a file that is not there. Blocking."""
    try:
        found = node.stat()
    except OSError:
        return None
    return Stamp(node.resolve(), found.st_ino, found.st_size, found.st_ctime_ns)


class Engines:
    """The last answer that was yes."""

    def __init__(self) -> None:
        self._fitted: tuple[Stamp, str] | None = None

    def fits(self, node: Path, wanted: str) -> bool:
        """False where it is not known. Blocking."""
        stamp = stamp_of(node)
        return stamp is not None and self._fitted == (stamp, wanted)

    def keep(self, stamp: Stamp | None, wanted: str) -> None:
        """`stamp` is of before the answer."""
        if stamp is not None:
            self._fitted = stamp, wanted
