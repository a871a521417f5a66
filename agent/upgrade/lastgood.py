"""The last known good release: where a node goes when it knows nothing else."""

from __future__ import annotations

from pathlib import Path

from shared.durable import write_durable
from shared.errors import BadInputError
from shared.release import Bound, Release, bound_of
from shared.wire import Sha256, Wire

FILE = "last-good.json"


class LastGood(Wire):
    """`bound` is of the newest release that was proven and soaked here, also after a rollback below it."""

    release: Sha256
    at: float
    bound: Bound | None = None


def note_good(home: Path, release: str, at: float) -> None:
    """This release is the last known good one; what bounds orders stays."""
    before = read_last_good(home)
    bound = None if before is None else before.bound
    write_durable(home / FILE, LastGood(release=release, at=at, bound=bound).canonical())


def raise_bound(home: Path, release: Release) -> None:
    """From now on orders lead back from here only as far as this release allows, if it is the newest."""
    good = read_last_good(home)
    if good is None or (good.bound is not None and release.place < good.bound.place):
        return
    changed = good.model_copy(update={"bound": bound_of(release)})
    write_durable(home / FILE, changed.canonical())


def read_last_good(home: Path) -> LastGood | None:
    try:
        return LastGood.from_bytes((home / FILE).read_bytes())
    except (FileNotFoundError, BadInputError):
        return None
