"""The audit log's rows and their chain: each row's hash covers the row before it.

Whoever changes, removes or swaps rows must recompute every hash after them, and then no head that an
operator noted earlier is in the chain any more.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from shared.canonical import canonical_json, sha256_hex
from shared.errors import BadInputError, RollcallError
from shared.wire import Reason, Sha256, Wire

GENESIS = "0" * 64
"""`prev` of the first row."""


class Entry(Wire):
    """What happened. `who` is a token's name and id, a node, or ``-`` for a stranger; `role` is an
    operator's role, ``node`` or ``-``; `action` is the method and the route."""

    model_config = ConfigDict(strict=True)

    who: str
    role: str
    address: str
    action: str
    subject: str
    status: int
    detail: Reason


class AuditRow(Entry):
    """`at` in seconds since the epoch. `sha256` is over the RFC 8785 JSON of all the other fields."""

    id: int
    at: float
    prev: Sha256
    sha256: Sha256

    def computed(self) -> str:
        return _digest(self.model_dump(mode="json", exclude={"sha256"}))


class AuditPage(Wire):
    """`last` is the id of the log's last row, 0 for an empty log."""

    rows: list[AuditRow]
    last: int


class BrokenChainError(RollcallError):
    """The log is not the one that was written."""

    code = "broken-chain"


class Chain:
    """Takes rows in order, from the first, or from the one after row `count` whose hash is `head`. `head` is the hash
    of the last one that fitted."""

    def __init__(self, count: int = 0, head: str = GENESIS) -> None:
        self.count, self.head = count, head
        self._heads = {head}

    def add(self, value: dict[str, Any]) -> None:
        """Raises BrokenChainError naming the first row that does not fit."""
        number = self.count + 1
        try:
            row = AuditRow.from_value(value)
        except BadInputError as error:
            raise BrokenChainError(f"row {number} is damaged: {error.message}") from error
        if row.id != number:
            raise BrokenChainError(f"row {number} is missing: row {row.id} stands in its place")
        if row.prev != self.head:
            raise BrokenChainError(f"row {number} does not follow the row before it")
        if row.sha256 != row.computed():
            raise BrokenChainError(f"row {number} was changed: its hash does not match its fields")
        self.count, self.head = number, row.sha256
        self._heads.add(row.sha256)

    def must_contain(self, head: str) -> None:
        """Raises BrokenChainError unless this log goes on from `head`, which was noted earlier."""
        if head not in self._heads:
            raise BrokenChainError(
                f"head {head[:12]} is not in the log: it was cut or written anew since",
                remedy="compare with a copy of the coordinator's database from that time",
            )


def next_row(number: int, prev: str, entry: Entry, at: float) -> AuditRow:
    fields = {"id": number, "at": at, "prev": prev, **entry.model_dump(mode="json")}
    return AuditRow(**fields, sha256=_digest(fields))


def _digest(fields: dict[str, Any]) -> str:
    return sha256_hex(canonical_json(fields))
