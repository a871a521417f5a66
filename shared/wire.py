"""Base of what travels: unknown fields are tolerated (an older reader, a newer writer), values are frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from shared.canonical import MAX_JSON_BYTES, canonical_json, parse_json
from shared.errors import BadInputError

MAX_INTEGER = 2**53 - 1
"""What every JSON reader and every database takes (RFC 8785, 3.2.2.3)."""
NODE_NAME = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
NodeName = Annotated[str, StringConstraints(pattern=f"^{NODE_NAME}$")]
Order = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}:[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
]
"""Rollout and node, such as `a81b21d0:canary`."""
RED_KEY = f"{NODE_NAME}:[0-9]{{1,16}}:[0-9]{{1,16}}"
RedKey = Annotated[str, StringConstraints(pattern=f"^{RED_KEY}$")]
"""Origin, boot epoch and sequence of a message, such as `canary:1795213777346:2`."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Reason = Annotated[str, StringConstraints(max_length=2000)]


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Without what was worked out of the old values and kept (`cached_property`)."""
        copied = super().model_copy(update=update, deep=deep)
        fields = type(self).model_fields
        if len(copied.__dict__) > len(fields):
            for name in copied.__dict__.keys() - fields.keys():
                del copied.__dict__[name]
        return copied

    def canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, raw: bytes, *, max_bytes: int = MAX_JSON_BYTES) -> Self:
        """Parse strictly, then validate. Raises BadInputError that names the field."""
        return cls.from_value(parse_json(raw, max_bytes=max_bytes))

    @classmethod
    def from_value(cls, value: Any) -> Self:
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise BadInputError(describe(error)) from error


def unknown_places(value: Any, understood: Any, place: str = "") -> list[str]:
    """Keys of a JSON value that are lost in `understood`, the dump of the model made of it. Unknown fields
    are tolerated in what travels; who acts on a signed document asks for them."""
    if isinstance(value, list) and isinstance(understood, list):
        pairs = zip(value, understood, strict=False)
        return [each for a, b in pairs for each in unknown_places(a, b, f"{place}[]")]
    if not isinstance(value, dict) or not isinstance(understood, dict):
        return []
    found = []
    for key, each in value.items():
        at = f"{place}.{key}" if place else str(key)
        found += unknown_places(each, understood[key], at) if key in understood else [at]
    return found


def short(text: str, limit: int = 2000) -> str:
    """Text of others, fit to travel as a reason: bounded, and without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")[:limit]


def describe(error: ValidationError) -> str:
    """The first complaint of a validation error, with its place, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{place}: {first['msg'].removeprefix('Value error, ')}"


def is_node_name(text: str) -> bool:
    return re.fullmatch(NODE_NAME, text) is not None


def is_red_key(text: str) -> bool:
    return re.fullmatch(RED_KEY, text) is not None
