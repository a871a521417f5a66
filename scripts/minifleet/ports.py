"""Ports for whatever a test or a benchmark starts: no two processes that ask here are given the same one.

To ask the system for a free port is not enough: it is free until somebody listens there, and with several fleets on one
machine that is often somebody else by then.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from shared.errors import UnavailableError
from shared.ports import BELOW_EPHEMERAL

SHARE = 500
SHARES = [range(low, low + SHARE) for low in range(12_000, BELOW_EPHEMERAL[0], SHARE)]
"""One a process, for as long as it lives. Below what agents choose from by themselves (shared/ports.py)."""


class Ports:
    """One share, given out in turn: a port comes again only when all others have been out."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._held, share = _hold_one(folder)
        self._turn = _turns(share)

    def take(self, count: int = 1) -> list[int]:
        """Ports on which nothing listens on loopback now."""
        with self._lock:
            return [self._next() for _ in range(count)]

    def close(self) -> None:
        """Its share is anybody's again."""
        os.close(self._held)

    def _next(self) -> int:
        for _ in range(SHARE):
            if _is_free(port := next(self._turn)):
                return port
        raise UnavailableError(f"all {SHARE} ports of this process are in use")


def _turns(share: range) -> Iterator[int]:
    while True:
        yield from share


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _hold_one(folder: Path) -> tuple[int, range]:
    """A share that no other process has, and the descriptor of its file: the lock on it goes with this process."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for share in SHARES:
        held = os.open(folder / str(share[0]), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            continue
        return held, share
    raise UnavailableError(
        f"{len(SHARES)} processes have all ports from {SHARES[0][0]} on",
        remedy="end some of the fleets that run on this machine",
    )


_ports: list[Ports] = []


def free_ports(count: int) -> list[int]:
    """Of this process's share. Raises UnavailableError."""
    if not _ports:
        _ports.append(Ports(Path(tempfile.gettempdir()) / f"rollcall-ports-{os.getuid()}"))
    return _ports[0].take(count)


def free_port() -> int:
    return free_ports(1)[0]
