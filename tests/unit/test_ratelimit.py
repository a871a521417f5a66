"""How often a stranger may be wrong before he has to wait."""

from __future__ import annotations

from shared.ratelimit import RateLimit
from tests.conftest import ManualClock


def limit(clock: ManualClock, max_keys: int = 4096) -> RateLimit:
    return RateLimit(clock, failures=3, window_s=60, max_keys=max_keys)


def test_free_until_the_failures_are_used_up(clock: ManualClock) -> None:
    limited = limit(clock)
    for _ in range(3):
        assert limited.allowed("a") == 0
        limited.failed("a")
    assert limited.allowed("a") == 60
    assert limited.allowed("b") == 0


def test_the_window_slides(clock: ManualClock) -> None:
    limited = limit(clock)
    for _ in range(3):
        limited.failed("a")
        clock.advance(20)
    assert limited.allowed("a") == 0
    limited.failed("a")
    assert limited.allowed("a") == 20
    clock.advance(20)
    assert limited.allowed("a") == 0


def test_failures_beyond_the_limit_prolong_the_wait(clock: ManualClock) -> None:
    limited = limit(clock)
    for _ in range(10):
        limited.failed("a")
        clock.advance(1)
    assert limited.allowed("a") == 57


def test_memory_is_bounded_and_the_oldest_is_forgotten(clock: ManualClock) -> None:
    limited = limit(clock, max_keys=100)
    for _ in range(3):
        limited.failed("first")
    for _ in range(3):
        limited.failed("kept")
    for number in range(1000):
        limited.failed(str(number))
        if number % 50 == 0:
            limited.failed("kept")
    assert len(limited) == 100
    assert limited.allowed("first") == 0
    assert limited.allowed("kept") > 0
