"""`/v1/events` as its reader sees it: lines to events (HTML, 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.canonical import parse_json
from shared.errors import BadInputError

MAX_EVENT_BYTES = 1 << 20


@dataclass(frozen=True)
class StreamEvent:
    """`id` is the place where the reader stands now: its Last-Event-ID. Empty before the first."""

    id: str
    kind: str
    body: dict[str, Any]


class EventParser:
    def __init__(self, last: str = "") -> None:
        self._last, self._kind = last, ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, line: str) -> StreamEvent | None:
        """The event that this line, an empty one, completes. Raises BadInputError for data that is too long, or no
        JSON object."""
        line = line.rstrip("\r\n")
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._last = value
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._size += len(value)
            if self._size > MAX_EVENT_BYTES:
                raise BadInputError(f"an event of more than {MAX_EVENT_BYTES} bytes")
            self._data.append(value)
        return None

    def _complete(self) -> StreamEvent | None:
        kind, data = self._kind, self._data
        self._kind, self._data, self._size = "", [], 0
        if not data:
            return None
        body = parse_json("\n".join(data).encode())
        if not isinstance(body, dict):
            raise BadInputError("an event's data is no JSON object")
        return StreamEvent(self._last, kind, body)
