"""Which versions of the protocol a side speaks, and what two sides make of it (docs/decisions/0013).

A range goes with every exchange: over HTTP as the header `Rollcall-Protocol: 1-2`, both ways; in a signed
message as two numbers, because it is relayed. Inside overlapping ranges writers add fields and readers
ignore those that they do not know. What an older reader must not ignore takes a new number.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from shared.errors import BadInputError
from shared.wire import Wire

HEADER: Final = "Rollcall-Protocol"
_TEXT: Final = re.compile(r"([1-9][0-9]{0,5})-([1-9][0-9]{0,5})")

Number = Annotated[int, Field(ge=1, le=999_999)]


class ProtocolRange(Wire):
    """From the oldest to the newest that a side speaks, both included."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError("a range ends before it begins")
        return self

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str) -> ProtocolRange:
        """The header's form. Raises BadInputError."""
        found = _TEXT.fullmatch(text)
        if found is None or int(found[1]) > int(found[2]):
            raise BadInputError(f"{HEADER}: {text[:40]!r} is not of the form 1-2")
        return cls(min=int(found[1]), max=int(found[2]))

    @property
    def header(self) -> str:
        return f"{self.min}-{self.max}"

    def __str__(self) -> str:
        one = self.min == self.max
        return f"protocol {self.min}" if one else f"protocols {self.min} to {self.max}"

    def overlaps(self, other: ProtocolRange) -> bool:
        return self.min <= other.max and other.min <= self.max


FIRST: Final = ProtocolRange(min=1, max=1)
"""What a side speaks that says nothing about it: the agents and coordinators of before ranges."""
FILE: Final = "shared/protocol.json"
SPOKEN: Final = ProtocolRange.from_bytes(Path(__file__).with_name("protocol.json").read_bytes())
"""What this version speaks. In a file of its own, so that it can be read from a wheel as well."""


class ProtocolError(BadInputError):
    """Two sides have no protocol in common: one of them must be upgraded first."""

    code = "protocol"
    http_status = 409


def check_overlap(own: ProtocolRange, theirs: ProtocolRange, *, here: str, there: str) -> None:
    """Raises ProtocolError that names both sides, both ranges, and the side to upgrade: the older one."""
    if own.overlaps(theirs):
        return
    older = here if own.max < theirs.max else there
    raise ProtocolError(
        f"{here} speaks {own} and {there} {theirs}: none in common", remedy=f"upgrade {older}"
    )
