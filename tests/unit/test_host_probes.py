"""Probes of the host and of the agent itself, on real files, processes and loops."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.readiness.footprint import (
    PSS_EVERY_S,
    FamilyMeter,
    RusageInfo,
    family_by_psutil,
    family_of,
    pss_of,
    resident_of,
)
from agent.readiness.probes.clock import ClockProbe, skew_of
from agent.readiness.probes.disk import PREFIX, DiskProbe
from agent.readiness.probes.host import HostMemory, HostProbe, read_host_memory
from agent.readiness.probes.loop import LoopProbe
from agent.readiness.probes.memory import MemoryProbe
from agent.service.base import Pid
from shared.readiness import CheckStatus
from shared.sizes import Watermark
from tests.conftest import ManualClock

MIB = 1 << 20
NOISE = 24 * MIB
"""A page's share grows when another Python of this host ends: what two had in common is one's alone."""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
GROWING = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.readline()"], stdin=subprocess.PIPE)
held = []
print("up", flush=True)
for line in sys.stdin:
    held.append(b"x" * (int(line) << 20))
    print("held", flush=True)
child.stdin.close()
child.wait()
"""


@contextmanager
def growing() -> Iterator[subprocess.Popen[str]]:
    """A process with a child that takes as many MiB as it is told."""
    with subprocess.Popen(
        [sys.executable, "-c", GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.stdin.close()


def grow(process: subprocess.Popen[str], mib: int) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.write(f"{mib}\n")
    process.stdin.flush()
    process.stdout.readline()


@linux
def test_a_family_is_found_as_psutil_finds_it() -> None:
    with growing() as process:
        assert sorted(family_of(process.pid)) == sorted(family_by_psutil(process.pid))
        assert len(family_of(process.pid)) == 2


@linux
def test_what_a_process_takes_shows_at_once_and_shared_pages_count_once(clock: ManualClock) -> None:
    meter = FamilyMeter(clock.monotonic)
    with growing() as process:
        before = meter.measure(process.pid)
        assert before is not None
        assert (before.kind, before.processes) == ("pss", 2)
        family = family_of(process.pid)
        assert before.bytes < sum(resident_of(each) or 0 for each in family)
        exact = sum(pss_of(each) or 0 for each in family)
        assert abs(before.bytes - exact) < NOISE
        grow(process, 64)
        after = meter.measure(process.pid)
        assert after is not None
        assert 64 * MIB - NOISE < after.bytes - before.bytes < 64 * MIB + NOISE
        clock.advance(PSS_EVERY_S)
        again = meter.measure(process.pid)
        assert again is not None
        assert abs(again.bytes - after.bytes) < NOISE


def test_a_process_that_is_gone_has_no_memory(clock: ManualClock) -> None:
    with growing() as process:
        pass
    assert FamilyMeter(clock.monotonic).measure(process.pid) is None


def test_elsewhere_the_resident_size_counts(clock: ManualClock) -> None:
    with growing() as process:
        seen = FamilyMeter(clock.monotonic, platform="freebsd14").measure(process.pid)
    assert seen is not None
    assert (seen.kind, seen.processes) == ("rss", 2)
    assert seen.bytes > 5 * MIB


def test_the_layout_of_macos_rusage() -> None:
    """<sys/resource.h>: a uuid of 16 bytes, then unsigned 64-bit numbers, the footprint being the eighth."""
    assert RusageInfo.ri_phys_footprint.offset == 16 + 7 * 8
    assert RusageInfo.ri_resident_size.offset == 16 + 6 * 8
    assert ctypes.sizeof(RusageInfo) == 16 + 18 * 8


def memory_probe(pid: Pid | None, clock: ManualClock, limit: int) -> MemoryProbe:
    async def alive() -> Pid | None:
        return pid

    return MemoryProbe(object, alive, FamilyMeter(clock.monotonic), 5, limit)  # type: ignore[arg-type]


async def test_memory_over_the_ceiling_fails_and_lets_go_below_it(clock: ManualClock) -> None:
    with growing() as process:
        pid = Pid(process.pid, 1234.5)
        probe = memory_probe(pid, clock, 60 * MIB)
        seen = await probe.read()
        assert seen.status is CheckStatus.PASS
        assert seen.series["gateway_started_at"] == 1234.5
        assert seen.series["memory_bytes"] == seen.observed
        grow(process, 64)
        full = await probe.read()
        assert full.status is CheckStatus.FAIL
        assert "the ceiling is 60 MiB" in full.reason
    gone = await memory_probe(None, clock, MIB).read()
    assert (gone.status, gone.reason) == (CheckStatus.FAIL, "the gateway is not running")


async def test_the_hosts_memory_is_judged_with_hysteresis() -> None:
    now = HostMemory(70, 8 << 30, 2 << 30)
    probe = HostProbe(10, 75, lambda: now)
    for percent, wanted in ((70, "pass"), (76, "fail"), (74, "fail"), (71, "pass")):
        now = HostMemory(percent, 8 << 30, 2 << 30)
        seen = await probe.read()
        assert seen.status == wanted, percent
        assert seen.series == {"host_memory_percent": percent}
        assert ("the limit is 75 %" in seen.reason) == (wanted == "fail")


@pytest.mark.parametrize(
    ("percent", "pressure", "wanted", "said"),
    [
        (80, 1, "warn", "macOS calls the pressure normal"),
        (80, 2, "fail", "macOS calls the pressure warning"),
        (50, 4, "warn", "short of memory; macOS calls the pressure critical"),
        (50, 1, "pass", ""),
    ],
)
async def test_on_a_mac_the_kernels_word_counts_too(
    percent: float, pressure: int, wanted: str, said: str
) -> None:
    seen = await HostProbe(10, 75, lambda: HostMemory(percent, 8 << 30, 1 << 30, pressure)).read()
    assert seen.status == wanted
    assert said in seen.reason


def test_this_host_has_memory() -> None:
    seen = read_host_memory()
    assert 0 < seen.percent < 100
    assert seen.available < seen.total


def disk_probe(folder: Path, watermark: str = "1MiB", latency_ms: float = 5000) -> DiskProbe:
    mark = Watermark(bytes=MIB) if watermark == "1MiB" else Watermark(bytes=1 << 60)
    places = {"the agent's home": folder, "the store of releases": folder / "not" / "there"}
    return DiskProbe(places, folder, 60, mark, latency_ms)


async def test_a_disk_with_room_passes_and_nothing_stays_on_it(tmp_path: Path) -> None:
    seen = await disk_probe(tmp_path).read()
    assert seen.status is CheckStatus.PASS, seen.reason
    assert seen.series["disk_free_bytes"] > MIB
    assert 0 < seen.series["disk_latency_ms"] < 5000
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_below_its_watermark_is_named(tmp_path: Path) -> None:
    seen = await disk_probe(tmp_path, "1EiB").read()
    assert seen.status is CheckStatus.FAIL
    assert f"the disk of the agent's home ({tmp_path}) has" in seen.reason
    assert "the watermark is" in seen.reason


async def test_a_slow_disk_fails_after_a_second_try(tmp_path: Path) -> None:
    seen = await disk_probe(tmp_path, latency_ms=1e-6).read()
    assert seen.status is CheckStatus.FAIL
    assert "ms, twice; the limit is" in seen.reason


async def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    probe = DiskProbe({"the agent's home": tmp_path}, gone, 60, Watermark(bytes=1), 5000)
    seen = await probe.read()
    assert seen.status is CheckStatus.FAIL
    assert seen.reason == f"{gone} cannot be written: No such file or directory"


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root may mount")
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_says_so_and_the_file_goes(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=64k") as small:
        rest = small / "rest"
        with rest.open("wb", buffering=0) as file:
            assert file.write(bytes(1 << 20)) < 1 << 20
        seen = await DiskProbe({"the store": small}, small, 60, Watermark(bytes=1), 5000).read()
        assert seen.status is CheckStatus.FAIL
        assert "has 0 MiB free" in seen.reason
        assert "is full: a write of 4096 bytes did not fit" in seen.reason
        assert not list(small.glob(f"{PREFIX}*"))


async def test_a_disk_that_became_read_only_says_so(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "ro") as folder:
        seen = await DiskProbe({"the store": folder}, folder, 60, Watermark(bytes=1), 5000).read()
        assert seen.status is CheckStatus.FAIL
        assert "read-only" in seen.reason


def clock_probe(clock: ManualClock, offsets: Mapping[str, float]) -> ClockProbe:
    return ClockProbe(clock, lambda: offsets, 30, 30)


@pytest.mark.parametrize(
    ("offsets", "wanted", "said"),
    [
        ({}, "pass", ""),
        ({"b": 0.01}, "pass", ""),
        ({"b": 40}, "warn", "clock is 40.0 s behind b's, its only peer: one of them is wrong"),
        ({"b": -40, "c": -41}, "fail", "clock is 40.0 s ahead of the median"),
        ({"b": 60, "c": 0.1}, "pass", ""),
        ({"b": 60, "c": 61, "d": 0}, "pass", ""),
        ({"b": 60, "c": 61, "d": 62}, "fail", "clock is 60.0 s behind the median"),
    ],
)
async def test_the_clock_against_those_of_the_peers(
    clock: ManualClock, offsets: dict[str, float], wanted: str, said: str
) -> None:
    seen = await clock_probe(clock, offsets).read()
    assert seen.status == wanted, seen.reason
    assert said in seen.reason
    assert ("clock_skew_s" in seen.series) == bool(offsets)


@given(wrong=st.floats(31, 1e6), others=st.integers(2, 9))
def test_one_wrong_clock_fails_alone(wrong: float, others: int) -> None:
    assert skew_of([-wrong] * others) == wrong
    assert skew_of([wrong, *[0.0] * (others - 1)]) == 0


async def test_sleep_is_a_warning_for_one_reading(clock: ManualClock) -> None:
    probe = clock_probe(clock, {})
    await probe.read()
    clock._now += 3600
    clock.advance(30)
    asleep = await probe.read()
    assert asleep.status is CheckStatus.WARN
    assert "the host slept for 3600 s, or its clock was set forward" in asleep.reason
    clock.advance(30)
    assert (await probe.read()).status is CheckStatus.PASS
    clock._now -= 100
    back = await probe.read()
    assert (back.status, back.reason) == (CheckStatus.WARN, "the clock was set back by 100 s")


async def test_a_loop_that_was_held_up_is_a_warning() -> None:
    probe = LoopProbe(0.02, 200)
    assert (await probe.read()).status is CheckStatus.PASS
    await asyncio.sleep(0.1)
    assert (await probe.read()).series["agent_loop_ms"] < 200
    time.sleep(0.3)  # noqa: ASYNC251 - to hold the loop up
    await asyncio.sleep(0.05)
    late = await probe.read()
    assert late.status is CheckStatus.WARN
    assert late.series["agent_loop_ms"] > 200
    assert "own event loop was held up" in late.reason
