"""The last known good release: where a node goes when it knows nothing else."""

from __future__ import annotations

from pathlib import Path

from shared.durable import write_durable
from shared.errors import BadInputError
from shared.wire import Sha256, Wire

FILE = "last-good.json"


class LastGood(Wire):
    """`highest` is the release that bounds where orders may lead: the newest one that was good here,
    also after a rollback below it."""

    release: Sha256
    at: float
    highest: Sha256 | None = None


def note_good(home: Path, release: str, at: float) -> None:
    """This release is the last known good one; what bounds orders stays."""
    before = read_last_good(home)
    highest = None if before is None else before.highest
    write_durable(home / FILE, LastGood(release=release, at=at, highest=highest).canonical())


def raise_highest(home: Path, release: str) -> None:
    """From now on orders lead back from here only as far as this release allows."""
    good = read_last_good(home)
    if good is not None and good.highest != release:
        write_durable(home / FILE, good.model_copy(update={"highest": release}).canonical())


def read_last_good(home: Path) -> LastGood | None:
    try:
        return LastGood.from_bytes((home / FILE).read_bytes())
    except (FileNotFoundError, BadInputError):
        return None
