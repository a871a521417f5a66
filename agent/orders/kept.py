"""What this node has claimed and how far it is: durable before it acts, so that nothing is done twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import Field

from shared.durable import write_durable
from shared.errors import BadInputError
from shared.orders import MAX_RESULT_CHARS, OpenOrder
from shared.wire import Order, Reason, Wire

log = structlog.get_logger()

FILE = "orders.json"
MAX_FILE = 4 << 20
MAX_ENDED = 256


class Outcome(Wire):
    failed: bool = False
    reason: Reason = ""
    result: Annotated[str, Field(max_length=MAX_RESULT_CHARS)] = ""


class Doing(Wire):
    """One order in hand. `facts` are what its performer has to know again after a restart; `begun` says that it is
    past the point up to which it can be left; with an outcome only the word about it is owed."""

    order: OpenOrder
    facts: dict[str, Any] = {}
    begun: bool = False
    outcome: Outcome | None = None


class _File(Wire):
    doing: Doing | None = None
    ended: Annotated[list[Order], Field(max_length=MAX_ENDED)] = []


class KeptOrders:
    """One order at a time. A file that cannot be read is put aside, and its orders are taken up anew, as far as they
    are still open: each of their kinds can be, and a second restart does less harm than none."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._file = _File()

    def load(self) -> None:
        """Blocking."""
        try:
            raw = self._path.read_bytes()
            self._file = _File.from_bytes(raw, max_bytes=MAX_FILE)
        except FileNotFoundError:
            return
        except BadInputError as error:
            log.error("what was in hand is not known any more", file=FILE, reason=str(error))
            self._path.replace(self._path.with_name(f"{FILE}.unreadable"))

    @property
    def doing(self) -> Doing | None:
        return self._file.doing

    def has_ended(self, order: str) -> bool:
        return order in self._file.ended

    async def keep(self, doing: Doing) -> None:
        await self._write(_File(doing=doing, ended=self._file.ended))

    async def end(self, order: str) -> None:
        """Nothing is owed for it any more, and it is not taken up again."""
        ended = [*(each for each in self._file.ended if each != order), order][-MAX_ENDED:]
        await self._write(_File(ended=ended))

    async def _write(self, file: _File) -> None:
        await asyncio.to_thread(write_durable, self._path, file.canonical())
        self._file = file
