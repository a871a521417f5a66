"""Whose turn it is: a few at a time, all before anybody again."""

from __future__ import annotations

import random
from collections.abc import Sequence


class Turns:
    """In an order drawn anew each time: nobody waits longer than for the others."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._all = 0

    def __len__(self) -> int:
        """How many took part when names were drawn last."""
        return self._all

    def draw(self, names: Sequence[str], count: int) -> list[str]:
        """The next ones, of those that are still named; each at most once."""
        self._all = len(names)
        self._waiting = [name for name in self._waiting if name in names]
        if len(self._waiting) < count:
            drawn = [name for name in names if name not in self._waiting]
            random.shuffle(drawn)
            self._waiting += drawn
        chosen, self._waiting = self._waiting[:count], self._waiting[count:]
        return chosen
