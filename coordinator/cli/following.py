"""How commands follow what goes on by itself: an answer that does not come is waited for, and Ctrl-C ends the looking,
not the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer

from shared.errors import RollcallError, UnavailableError
from shared.terminal import EXIT_INTERRUPTED, say

T = TypeVar("T")


@contextmanager
def left_alone(again: str) -> Iterator[None]:
    """Ctrl-C says how to look again, and exits with 130."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\n{again}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


class Complaints:
    """Says once that nobody answers, and once that somebody does again."""

    def __init__(self, tell: Callable[[str], None] = say) -> None:
        self._tell, self._is_silent = tell, False

    def silence(self, error: RollcallError) -> None:
        if not self._is_silent:
            self._tell(f"{error.message}; trying again")
        self._is_silent = True

    def answer(self) -> None:
        if self._is_silent:
            self._tell("the coordinator answers again")
        self._is_silent = False


def follow(
    look: Callable[[], T],
    is_over: Callable[[T], bool],
    patience_s: float,
    every_s: float,
    again: str,
    *,
    first: T | None = None,
) -> T:
    """What was seen last: when it is over, or when the time is. `is_over` is shown everything that is seen.

    Raises UnavailableError only where nothing has been seen by then.
    """
    ends, complaints, seen, pause = time.monotonic() + patience_s, Complaints(), first, 0.0
    with left_alone(again):
        while seen is None or not (is_over(seen) or time.monotonic() >= ends):
            time.sleep(every_s if first is not None else pause)
            pause = every_s
            try:
                seen = look()
                complaints.answer()
            except UnavailableError as error:
                if seen is None and time.monotonic() >= ends:
                    raise
                complaints.silence(error)
    return seen
