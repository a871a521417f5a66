"""Writes of many requests, made together: what comes while the disk syncs costs one more sync, not one each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


FEW = 4


class Together(Generic[T]):
    """One write at a time, with whatever has come until it begins. After a write of more than FEW the first of the
    next ones waits `gather_s` for others: where few come, each is written at once. `write` keeps all or nothing."""

    def __init__(
        self, write: Callable[[list[T]], Awaitable[None]], name: str, gather_s: float = 0.0
    ) -> None:
        self._write_all, self._name, self._gather_s = write, name, gather_s
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._many = False

    async def keep(self, item: T) -> None:
        """Returns when it is durable; in the order of the calls. Raises what the database says."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit(), name=self._name)
        await done

    async def close(self) -> None:
        """When nobody calls any more: what has come is written."""
        if self._committing is not None:
            await self._committing

    async def _commit(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s if self._many else 0)
                batch, self._waiting = self._waiting, []
                self._many = len(batch) > FEW
                await self._write(batch)
        finally:
            self._committing = None

    async def _write(self, batch: list[tuple[T, asyncio.Future[None]]]) -> None:
        failure: Exception | None = None
        try:
            await self._write_all([item for item, _ in batch])
        except Exception as error:
            failure = error
        for _, done in batch:
            if done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)
