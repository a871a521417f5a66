"""The share of traffic this node asks for; load balancers read it as a weight, or as ready or not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field

from agent.balancers import Balancers
from shared.clock import Clock
from shared.durable import write_durable
from shared.errors import BadInputError
from shared.traffic import FULL
from shared.wire import Wire

log = structlog.get_logger()


class _Stored(Wire):
    percent: Annotated[int, Field(ge=0, le=FULL)]


class Traffic:
    """Implements Weight: durable, so that a node that was drained stays drained over a restart."""

    def __init__(
        self, path: Path, on_change: Callable[[], None], balancers: Balancers, clock: Clock
    ) -> None:
        self._path, self._on_change = path, on_change
        self._balancers, self._clock = balancers, clock
        self._turn, self._held = asyncio.Lock(), ""
        self._since = clock.monotonic()
        """Since when it has been what it is; of an earlier agent only that it was."""
        try:
            self._percent = _Stored.from_bytes(path.read_bytes()).percent
        except FileNotFoundError:
            self._percent = FULL
        except BadInputError as error:
            log.warning("the traffic weight is taken as full", file=str(path), reason=str(error))
            self._percent = FULL

    def hold(self, reason: str) -> None:
        """Whoever holds the ratios of the whole fleet, in words; empty when nobody does."""
        self._held = reason

    def held(self) -> str:
        return self._held

    def get(self) -> int:
        return self._percent

    async def set(self, percent: int) -> None:
        async with self._turn:
            await self._set(percent)

    async def set_while(self, percent: int, holds: Callable[[], bool]) -> bool:
        """Only if `holds` says yes once it is this change's turn: an upgrade that drains the node comes first."""
        async with self._turn:
            if not holds():
                return False
            await self._set(percent)
            return True

    async def _set(self, percent: int) -> None:
        stored = _Stored(percent=percent)
        await asyncio.to_thread(write_durable, self._path, stored.canonical())
        if percent != self._percent:
            self._percent, self._since = percent, self._clock.monotonic()
        self._on_change()

    def asked(self) -> bool:
        """Whether somebody asks for the weight, as far as can be known yet."""
        return self._balancers.ask_for_weights()

    async def leave(self) -> list[str]:
        """Weight 0, and every load balancer that has asked lately has been told so. Returns those that did not
        ask again in time."""
        await self.set(0)
        return await self._balancers.until_told(self._since)
