"""What a request changes, the answer that is kept of it and its row in the audit log are one transaction: a coordinator
that is killed at any moment has made all of it or nothing, and the same request is answered accordingly.

Whoever writes says with `answered_by` what the request is answered with, and the transaction that is open, or the one
that is opened next, takes the answer along. Where no request that changes something is carried out it does nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.wire import Wire

Keep = Callable[[AsyncConnection, Wire | None], Awaitable[bool]]
"""Writes the answer and the row. False for what does not answer this request: it was a step on the way."""


@dataclass
class Settlement:
    """Of one request. `done` once its change is durable, with the answer."""

    keep: Keep
    said: bool = False
    answer: Wire | None = None
    done: bool = False

    async def join(self, db: AsyncConnection) -> bool:
        """Whether this transaction takes the answer along."""
        if self.done or not self.said:
            return False
        self.said = False
        return await self.keep(db, self.answer)


_current: Final[ContextVar[Settlement | None]] = ContextVar("settlement", default=None)


@contextmanager
def settling(settlement: Settlement) -> Iterator[None]:
    """While the request is carried out."""
    token = _current.set(settlement)
    try:
        yield
    finally:
        _current.reset(token)


def current_settlement() -> Settlement | None:
    return _current.get()


def answered_by(answer: Wire | None) -> None:
    """None where the answer is not kept: the row alone goes along. Said directly before the write, or in it, where
    nothing can refuse it any more."""
    if (settlement := _current.get()) is not None and not settlement.done:
        settlement.said, settlement.answer = True, answer
