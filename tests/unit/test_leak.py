"""The leak guard on hours of memory: simulated, and as the real gateway had it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.readiness.guards.leak import LeakGuard, LeakLimits, describe_duration
from agent.readiness.history import History
from shared.readiness import Check, CheckStatus

MIB = 1 << 20
LIMITS = LeakLimits(ceiling=4096 * MIB, warmup_s=90, window_s=150, horizon_s=7200)
T0 = 1_800_000_000.0
EVERY_S = 5.0
TRACES = Path(__file__).parent / "samples" / "memory"

Memory = Callable[[float], float]
"""MiB at so many seconds after the gateway's start."""


class Node:
    """A gateway's memory as the probe reads it, and the guard that looks at it."""

    def __init__(self, *, says_start: bool = True) -> None:
        self.history, self.guard = History(), LeakGuard(LIMITS)
        self.now, self.started, self.says_start = T0, T0, says_start
        self.seen: list[tuple[float, float, Check]] = []

    def restart(self, away_s: float = 0.0) -> None:
        self.now += away_s
        self.started = self.now

    def read(self, used: float, *, look: bool = True) -> None:
        if self.says_start:
            self.history.note("gateway_started_at", self.now, self.started)
        self.history.note("memory_bytes", self.now, used * MIB)
        if look:
            check = self.guard.judge(self.history, self.now)
            self.seen.append((self.now - self.started, used, check))
        self.now += EVERY_S

    def live(self, memory: Memory, hours: float, *, look_every: int = 1) -> None:
        for place in range(int(hours * 3600 / EVERY_S)):
            self.read(memory(self.now - self.started), look=place % look_every == 0)

    def first(self, status: CheckStatus) -> tuple[float, float, Check] | None:
        found = (
            each for each in self.seen if each[2].status is status and not each[2].inconclusive
        )
        return next(found, None)

    @property
    def called(self) -> tuple[float, float, str] | None:
        failed = self.first(CheckStatus.FAIL)
        return None if failed is None else (failed[0], failed[1], failed[2].reason)


def seeded(seed: int) -> Random:
    """Noise of a simulation is no secret."""
    return Random(seed)  # noqa: S311


def noisy(memory: Memory, random: Random, mib: float) -> Memory:
    return lambda at: memory(at) + random.gauss(0, mib)


def saw(middle: float, period: float, phase: float, swing: float = 150) -> Memory:
    return lambda at: middle - swing + 2 * swing * ((at / period + phase) % 1)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), noise=st.floats(0, 6), says_start=st.booleans())
def test_a_leak_of_1_mib_a_second_is_called_before_a_quarter_of_the_ceiling_is_used(
    seed: int, noise: float, says_start: bool
) -> None:
    node = Node(says_start=says_start)
    node.live(noisy(lambda at: 750 + at, seeded(seed), noise), 0.1)
    assert node.called is not None
    after, used, reason = node.called
    assert used < 1024
    assert 240 <= after < 274
    assert reason.startswith("memory grows by")
    assert "reaches the ceiling of 4096 MiB in" in reason


def test_what_a_leak_is_called_in_words() -> None:
    node = Node()
    node.live(lambda at: 750 + at, 0.1)
    _, _, check = next(each for each in node.seen if each[2].status is CheckStatus.FAIL)
    assert check.reason == ("memory grows by 1.0 MiB/s: reaches the ceiling of 4096 MiB in 52 min")
    assert check.observed == MIB
    assert check.unit == "bytes/s"
    assert check.limit == pytest.approx((4096 - 990) * MIB / 7200, abs=1)
    words = {seconds: describe_duration(seconds) for seconds in (45, 3300, 11400, 7140)}
    assert words == {45: "45 s", 3300: "55 min", 11400: "3 h 10 min", 7140: "119 min"}


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    period=st.floats(20, 7200),
    phase=st.floats(0, 1),
    middle=st.floats(500, 2000),
)
@example(seed=1, period=300, phase=0, middle=900)
@example(seed=1, period=450, phase=0.5, middle=1200)
@example(seed=1, period=250, phase=0.9, middle=1000)
def test_a_saw_of_150_mib_up_and_down_is_not_called_once_it_was_seen_for_an_hour(
    seed: int, period: float, phase: float, middle: float
) -> None:
    node, memory = Node(), noisy(saw(middle, period, phase), seeded(seed), 5)
    node.live(memory, 1.2, look_every=12)
    node.seen.clear()
    node.live(memory, 2, look_every=3)
    assert node.called is None


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), period=st.floats(20, 7200), phase=st.floats(0, 1))
@example(seed=1, period=300, phase=0)
@example(seed=1, period=450, phase=0.3)
def test_nor_on_its_first_tooth_when_nobody_knows_the_gateway_yet(
    seed: int, period: float, phase: float
) -> None:
    node = Node()
    node.live(noisy(saw(750, period, phase), seeded(seed), 5), 1, look_every=2)
    assert node.called is None


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), start=st.floats(300, 2000), ramp=st.floats(20, 85))
def test_a_warm_up_that_flattens_is_not_called(seed: int, start: float, ramp: float) -> None:
    node = Node()
    node.live(noisy(lambda at: start + 300 * min(1, at / ramp), seeded(seed), 8), 1, look_every=2)
    assert node.called is None
    assert node.first(CheckStatus.WARN) is None


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), at=st.floats(95, 2000), middle=st.floats(600, 3000))
def test_one_step_up_is_not_called(seed: int, at: float, middle: float) -> None:
    node = Node()
    node.live(
        noisy(lambda now: middle + (200 if now > at else 0), seeded(seed), 8), 1, look_every=2
    )
    assert node.called is None


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), step=st.floats(0.5, 5))
def test_an_hour_of_a_random_walk_is_not_called(seed: int, step: float) -> None:
    random, node, used = seeded(seed), Node(), 1000.0
    for _ in range(720):
        used = max(300.0, used + random.gauss(0, step))
        node.read(used)
    assert node.called is None


def test_a_busy_hour_that_ends_is_not_called_once_the_gateway_is_known() -> None:
    """Every day it takes 300 MiB more for an hour, and gives them back."""

    def day(at: float) -> float:
        busy = at % 14400
        return 900 + 300 * min(1.0, busy / 3600) if busy < 7200 else 900

    node = Node()
    node.live(noisy(day, seeded(3), 8), 9, look_every=12)
    assert node.called is None


def test_a_leak_is_called_on_a_gateway_with_a_known_saw_as_well() -> None:
    node = Node()
    node.live(saw(800, 400, 0, swing=80), 2)
    node.live(lambda at: saw(800, 400, 0, swing=80)(at) + (at - 7200), 0.4)
    assert node.called is not None
    assert node.called[0] - 7200 < 900


def test_a_slow_leak_is_a_warning_and_a_slower_one_nothing() -> None:
    slow, slower = Node(), Node()
    slow.live(lambda at: 900 + at * 0.2, 1.2)
    slower.live(lambda at: 900 + at * 0.05, 1.2)
    warned = slow.first(CheckStatus.WARN)
    assert warned is not None
    assert "memory grows by 0.2 MiB/s" in warned[2].reason
    assert slow.called is None
    assert (slower.called, slower.first(CheckStatus.WARN)) == (None, None)


def test_a_restart_ends_it_and_the_new_process_is_looked_at_anew() -> None:
    for says_start in (True, False):
        node = Node(says_start=says_start)
        node.live(lambda at: 750 + at, 0.12)
        assert node.called is not None
        node.restart()
        node.read(400.0)
        check = node.seen[-1][2]
        assert (check.status, check.inconclusive) == (CheckStatus.WARN, True)
        assert check.reason == "the gateway warms up; has seen 0 s of 150 s"
        node.live(lambda at: 800.0, 0.2)
        assert node.seen[-1][2].status is CheckStatus.PASS


def test_it_says_how_much_it_has_seen() -> None:
    empty = LeakGuard(LIMITS).judge(History(), T0)
    assert (empty.status, empty.inconclusive) == (CheckStatus.WARN, True)
    assert empty.reason == "no memory of the gateway was read yet"
    node = Node()
    node.live(lambda at: 800.0, 0.1)
    said = {at: (check.inconclusive, check.reason) for at, _, check in node.seen}
    assert said[60] == (True, "the gateway warms up; has seen 0 s of 150 s")
    assert said[130] == (True, "has seen 40 s of 150 s")
    assert said[240] == (False, "")


def test_a_failure_stays_until_the_growth_has_clearly_ended() -> None:
    node = Node()
    node.live(lambda at: 750 + min(at, 400), 0.5)
    statuses = [check.status for _, _, check in node.seen if not check.inconclusive]
    changes = sum(a is not b for a, b in pairwise(statuses))
    assert (statuses[0], statuses[-1], changes) == (CheckStatus.FAIL, CheckStatus.PASS, 1)
    last = max(at for at, _, check in node.seen if check.status is CheckStatus.FAIL)
    assert 400 < last < 500, "a rise that has ended is not held against it for long"


def test_it_is_looked_at_once_for_each_reading() -> None:
    node = Node()
    node.live(lambda at: 800.0, 0.2)
    first = node.guard.judge(node.history, node.now)
    assert node.guard.judge(node.history, node.now + 3) is first


def replay(name: str) -> Node:
    node = Node()
    for at, used in json.loads((TRACES / name).read_text()):
        node.now = T0 + at
        node.read(used)
    return node


def test_the_real_gateway_busy_for_25_minutes_is_not_called() -> None:
    """OpenClaw 2026.9.6 with a turn every four seconds. It gains 180 MiB and gives them back, again and again."""
    node = replay("busy-2026.9.6.json")
    assert node.seen[-1][0] > 1400
    assert max(used for _, used, _ in node.seen) > 1300
    assert node.called is None


def test_the_real_gateway_with_a_plugin_that_leaks_is_called() -> None:
    """1 MiB a second, with a fall of 88 MiB on the way: what the start had needed."""
    node = replay("leaking-2026.9.6.json")
    assert node.called is not None
    after, used, _ = node.called
    assert after < 300
    assert used < 1024
