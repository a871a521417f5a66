"""How often a stranger may be wrong: failures per key in a sliding window, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict, deque

from shared.clock import Clock


class RateLimit:
    """At most `failures` within any `window_s` seconds for one key, such as a remote address.

    At most `max_keys` keys are remembered; the one whose last failure is oldest is forgotten first,
    so whoever has that many addresses buys himself a second chance, not our memory.
    """

    def __init__(
        self, clock: Clock, *, failures: int, window_s: float, max_keys: int = 4096
    ) -> None:
        self._clock, self._failures = clock, failures
        self._window_s, self._max_keys = window_s, max_keys
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._failed)

    def allowed(self, key: str) -> float:
        """Seconds until the key may try again; 0.0 when it may now. Asking counts for nothing."""
        times = self._failed.get(key)
        if times is None or len(times) < self._failures:
            return 0.0
        return max(0.0, times[0] + self._window_s - self._clock.monotonic())

    def failed(self, key: str) -> None:
        """Only the last `failures` times are kept: the oldest of them decides when the key is free."""
        times = self._failed.setdefault(key, deque(maxlen=self._failures))
        times.append(self._clock.monotonic())
        self._failed.move_to_end(key)
        if len(self._failed) > self._max_keys:
            self._failed.popitem(last=False)
