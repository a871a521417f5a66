"""Processes of a gateway: told apart, and ended with all their children."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.service.base import Pid

KILL_WAIT_S = 5.0
MAX_LOG_BYTES = 32 << 20


@dataclass(frozen=True)
class Sighting:
    """A process that a supervisor named, held so that a stranger with its number later is another one.
    Its start is read once: a clock that is set must not make it a new process."""

    pid: Pid
    process: psutil.Process

    @classmethod
    def of(cls, number: int) -> Sighting | None:
        """None when there is no such process, or only what is left of one."""
        try:
            process = psutil.Process(number)
            seen = cls(Pid(number, process.create_time()), process)
        except psutil.Error:
            return None
        return seen if seen.alive() else None

    def alive(self) -> bool:
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def family_of(pid: int) -> list[psutil.Process]:
    """All below a process, however deep; nothing when it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def end_all(processes: list[psutil.Process]) -> None:
    """Kill, and wait a little. Blocking."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=KILL_WAIT_S)


def rotate(path: Path) -> None:
    """Before a start: nobody else would ever shorten what a gateway prints (MACOS.md, 7)."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".1.log"))
