"""The last known good release: where a node goes when it knows nothing else."""

from __future__ import annotations

from pathlib import Path

from shared.durable import write_durable
from shared.errors import BadInputError
from shared.wire import Sha256, Wire

FILE = "last-good.json"


class LastGood(Wire):
    release: Sha256
    at: float


def write_last_good(home: Path, good: LastGood) -> None:
    write_durable(home / FILE, good.canonical())


def read_last_good(home: Path) -> LastGood | None:
    try:
        return LastGood.from_bytes((home / FILE).read_bytes())
    except (FileNotFoundError, BadInputError):
        return None
