"""How long to wait before trying again: longer each time, and not in step with everybody else."""

from __future__ import annotations

import random


class Backoff:
    """Pauses from `first` seconds, doubled after each failure up to `longest`, a fifth more or less."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def succeeded(self) -> None:
        self._next = self._first

    def failed(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = self._next * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        self._next = min(self._next * 2, self._longest)
        return pause
