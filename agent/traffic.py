"""The share of traffic this node asks for; load balancers read it as ready or not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from shared.durable import write_durable
from shared.errors import BadInputError
from shared.wire import Wire

FULL = 100


class _Stored(Wire):
    percent: Annotated[int, Field(ge=0, le=FULL)]


class Traffic:
    """Implements Weight: durable, so that a node that was drained stays drained over a restart."""

    def __init__(self, path: Path, on_change: Callable[[], None]) -> None:
        self._path, self._on_change = path, on_change
        try:
            self._percent = _Stored.from_bytes(path.read_bytes()).percent
        except (FileNotFoundError, BadInputError):
            self._percent = FULL

    def get(self) -> int:
        return self._percent

    async def set(self, percent: int) -> None:
        stored = _Stored(percent=percent)
        await asyncio.to_thread(write_durable, self._path, stored.canonical())
        self._percent = percent
        self._on_change()
