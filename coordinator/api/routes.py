"""The form of the route table.

A resource is a class with `routes`: one `Route` for each thing that it does. gate.py enforces what it declares. The
OpenAPI description is made from the same table (openapi.py), so a new route needs a line in `routes` and nothing else.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from aiohttp import web

from coordinator.api.access import Allows, Caller
from shared.canonical import MAX_JSON_BYTES
from shared.envelope import DsseEnvelope
from shared.errors import BadInputError
from shared.http import BODY_DEADLINE_S
from shared.wire import Wire

SHA256 = r"[0-9a-f]{64}"
SHORT_ID = r"[0-9a-f]{8}"
READING = frozenset({"GET"})

W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Media:
    """A body that reaches the handler as bytes of this content type; `shape` only describes it."""

    type: str
    shape: builtins.type[Wire] | None = None


JSON = Media("application/json")
ENVELOPE = Media("application/json", DsseEnvelope)
BINARY = Media("application/octet-stream")


@dataclass(frozen=True)
class Number:
    """A query parameter: a whole number from `lowest` to `highest`, `default` when it is absent."""

    name: str
    default: int
    highest: int
    summary: str
    lowest: int = 0

    def read(self, text: str | None) -> int:
        if text is None:
            return self.default
        digits = text.isascii() and text.isdigit() and len(text) <= 18
        if not digits or not self.lowest <= int(text) <= self.highest:
            raise BadInputError(
                f"{self.name} is a whole number from {self.lowest} to {self.highest}"
            )
        return int(text)


@dataclass(frozen=True)
class Word:
    """A query parameter: text of this form, or absent."""

    name: str
    pattern: str
    summary: str

    def read(self, text: str | None) -> str | None:
        if text is not None and re.fullmatch(self.pattern, text) is None:
            raise BadInputError(f"{self.name} is not of the form {self.pattern}")
        return text


@dataclass
class Call:
    """One request that was let in. `subject` and `detail` go into the audit log; a handler that knows
    better than the path what it changed says so. `key` is its Idempotency-Key. `recorded` once its row is in the audit
    log."""

    caller: Caller
    parameters: Mapping[str, str]
    query: Mapping[str, int]
    body: Wire | bytes | None
    subject: str
    detail: str = ""
    words: Mapping[str, str | None] = field(default_factory=dict)
    key: str | None = None
    replayed: bool = False
    recorded: bool = False
    if_match: str | None = None
    request: web.Request | None = None

    def must_request(self) -> web.Request:
        """For answers that go out piece by piece."""
        if self.request is None:
            raise TypeError("this call did not come in as a request")
        return self.request

    def wire(self, model: type[W]) -> W:
        """The body, as the model that the route declares."""
        if not isinstance(self.body, model):
            raise TypeError(f"the route declares no body of {model.__name__}")
        return self.body

    @property
    def raw(self) -> bytes:
        if not isinstance(self.body, bytes):
            raise TypeError("the route declares no body of bytes")
        return self.body


Answer = Wire | web.StreamResponse
Handler = Callable[[Any, Call], Awaitable[Answer]]
Version = Callable[[Any, Call], Awaitable[str | None]]
"""Which version of what a route is about there is now; None when there is none."""
About = Callable[[Call, Any], None]
"""Says in `subject` and `detail` what an answer of this route means."""


@dataclass(frozen=True)
class Route:
    """`handler` is the resource's method. `success` lists the statuses of good answers, the usual one
    first; `refusals` those that only this route gives (access, size and shape are known already).
    `recorded` keeps what changes nothing that an operator would ask about out of the audit log.

    `etag` is the resource's method that names the version of what is read or replaced: it goes out as ETag,
    and a change with If-Match is made only while that is the version; `tag` is the version that an answer of such a
    change has. Changes of one resource that have it are made one after the other. `about` is asked where the answer
    is known before the handler is through. `secret`: the answer is kept sealed. `keyed` is False for what is no
    change, though it is a POST."""

    method: str
    path: str
    handler: Handler
    allows: Allows
    summary: str
    body: type[Wire] | Media | None = None
    answer: type[Wire] | Media | None = None
    success: tuple[int, ...] = (200,)
    refusals: tuple[int, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: tuple[Number | Word, ...] = ()
    limit: int = MAX_JSON_BYTES
    deadline_s: float = BODY_DEADLINE_S
    recorded: bool = True
    etag: Version | None = None
    tag: Callable[[Any], str] | None = None
    about: About | None = None
    secret: bool = False
    keyed: bool = True

    def __post_init__(self) -> None:
        if set(re.findall(r"\{(\w+)\}", self.path)) != set(self.parameters):
            raise ValueError(f"{self.action}: each path parameter needs a pattern")

    @property
    def action(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_recorded(self) -> bool:
        return self.recorded and self.method not in READING

    @property
    def takes_key(self) -> bool:
        """Strangers' changes have terms of their own, which say what a repetition means."""
        return self.keyed and self.method not in READING and self.allows is not Allows.ANYONE


class Resource:
    """A part of the API. Its handlers are the methods that its routes name."""

    routes: ClassVar[Sequence[Route]] = ()
