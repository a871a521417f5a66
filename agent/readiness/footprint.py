"""How much memory a process and all below it take, found cheaply.

Linux: PSS (a shared page is counted once, by parts) from `smaps_rollup`, which costs the kernel about 10 ms
for 800 MiB. So it is read once a minute and whenever the family changed; in between the resident size
moves it, at some 30 µs a process. Where it cannot be read (another account's process, old kernels) the
resident size counts. macOS: `phys_footprint`, as Activity Monitor shows it. Elsewhere: resident size.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

PSS_EVERY_S = 60.0
MAX_FAMILY = 512
PROC = "/proc"
RUSAGE_INFO_V2 = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Footprint:
    """`kind` is `pss`, `footprint` or `rss`: what `bytes` is the sum of over `processes` processes."""

    bytes: int
    processes: int
    kind: str


@dataclass
class _Excess:
    """By how much the resident size of a family was more than its PSS, and when that was measured."""

    family: tuple[int, ...]
    bytes: int
    at: float
    whole: bool


class FamilyMeter:
    """Remembers between readings what is dear to measure. Blocking; one reader at a time."""

    def __init__(self, monotonic: Callable[[], float], *, platform: str = sys.platform) -> None:
        self._monotonic, self._platform = monotonic, platform
        self._excess: _Excess | None = None

    def measure(self, pid: int) -> Footprint | None:
        """None when the process is gone. A child that ends meanwhile counts nothing."""
        if self._platform.startswith("linux"):
            return self._measure_linux(pid)
        sizes = {each: _size_elsewhere(each, self._platform) for each in family_by_psutil(pid)}
        known = [size for size in sizes.values() if size is not None]
        kind = "footprint" if self._platform == "darwin" else "rss"
        return Footprint(sum(known), len(known), kind) if sizes.get(pid) is not None else None

    def _measure_linux(self, pid: int) -> Footprint | None:
        resident = {each: resident_of(each) for each in family_of(pid)}
        if resident.get(pid) is None:
            return None
        family = tuple(sorted(each for each, size in resident.items() if size is not None))
        total = sum(size for size in resident.values() if size is not None)
        now, known = self._monotonic(), self._excess
        if known is None or known.family != family or now - known.at >= PSS_EVERY_S:
            known = self._excess = _measure_excess(family, resident, now)
        return Footprint(max(0, total - known.bytes), len(family), "pss" if known.whole else "rss")


def _measure_excess(
    family: tuple[int, ...], resident: dict[int, int | None], now: float
) -> _Excess:
    excess, whole = 0, True
    for pid in family:
        pss = pss_of(pid)
        if pss is None:
            whole = False
        else:
            excess += max(0, (resident[pid] or 0) - pss)
    return _Excess(family, excess, now, whole)


def family_of(pid: int) -> list[int]:
    """A process and all below it, itself first. From the kernel's own lists of children, which costs some
    10 µs a thread; psutil looks at every process of the host instead."""
    found, ahead = [pid], [pid]
    while ahead and len(found) < MAX_FAMILY:
        children = _children_of(ahead.pop())
        if children is None:
            return family_by_psutil(pid)
        new = [each for each in children if each not in found]
        found += new
        ahead += new
    return found


def family_by_psutil(pid: int) -> list[int]:
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return [pid]
    return [pid, *(each.pid for each in below[:MAX_FAMILY])]


def _children_of(pid: int) -> list[int] | None:
    """None where the kernel has no such lists; empty for a process that is gone."""
    try:
        with os.scandir(f"{PROC}/{pid}/task") as found:
            threads = [each.name for each in found]
    except OSError:
        return []
    children: list[int] = []
    for thread in threads:
        try:
            children += map(int, _read(f"{PROC}/{pid}/task/{thread}/children").split())
        except FileNotFoundError:
            if Path(f"{PROC}/{pid}/task/{thread}").is_dir():
                return None
        except OSError:
            continue
    return children


def resident_of(pid: int) -> int | None:
    """In bytes; None for a process that is gone."""
    try:
        return int(_read(f"{PROC}/{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None


def pss_of(pid: int) -> int | None:
    """In bytes; None where the kernel does not tell this account."""
    try:
        text = _read(f"{PROC}/{pid}/smaps_rollup")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


class RusageInfo(ctypes.Structure):
    """`struct rusage_info_v2` of macOS's <sys/resource.h>, up to what is used of it and its end."""

    _fields_ = (
        ("ri_uuid", ctypes.c_uint8 * 16),
        ("ri_user_time", ctypes.c_uint64),
        ("ri_system_time", ctypes.c_uint64),
        ("ri_pkg_idle_wkups", ctypes.c_uint64),
        ("ri_interrupt_wkups", ctypes.c_uint64),
        ("ri_pageins", ctypes.c_uint64),
        ("ri_wired_size", ctypes.c_uint64),
        ("ri_resident_size", ctypes.c_uint64),
        ("ri_phys_footprint", ctypes.c_uint64),
        ("ri_proc_start_abstime", ctypes.c_uint64),
        ("ri_proc_exit_abstime", ctypes.c_uint64),
        ("ri_child_user_time", ctypes.c_uint64),
        ("ri_child_system_time", ctypes.c_uint64),
        ("ri_child_pkg_idle_wkups", ctypes.c_uint64),
        ("ri_child_interrupt_wkups", ctypes.c_uint64),
        ("ri_child_pageins", ctypes.c_uint64),
        ("ri_child_elapsed_abstime", ctypes.c_uint64),
        ("ri_diskio_bytesread", ctypes.c_uint64),
        ("ri_diskio_byteswritten", ctypes.c_uint64),
    )


def phys_footprint(pid: int) -> int | None:
    """In bytes, from macOS's `proc_pid_rusage`; None when it does not tell."""
    library = ctypes.CDLL(ctypes.util.find_library("proc"), use_errno=True)
    info = RusageInfo()
    if library.proc_pid_rusage(pid, RUSAGE_INFO_V2, ctypes.byref(info)) != 0:
        return None
    return int(info.ri_phys_footprint)


def _size_elsewhere(pid: int, platform: str) -> int | None:
    if platform == "darwin":
        return phys_footprint(pid)
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
