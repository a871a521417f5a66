"""Lists and windows as an operator writes them in one line; pydantic runs these before anything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

NOTHING = ("", "none")
_WINDOW = re.compile(r"(?P<cron>.+?)\s+for\s+(?P<duration_s>\S+)(?:\s+in\s+(?P<tz>\S+))?")


def split_at(separator: str) -> Callable[[Any], Any]:
    """`1, 5, 25` as a list of its parts; `none` and nothing at all are the empty list. What is no text stays."""

    def split(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip().lower() in NOTHING:
            return []
        return [part.strip() for part in value.split(separator)]

    return split


def without_percent(value: Any) -> Any:
    return value.strip().removesuffix("%") if isinstance(value, str) else value


def split_window(value: Any) -> Any:
    """`0 2 * * 1-5 for 3h in Europe/Berlin` as the fields of a Window. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = _WINDOW.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is not of the form: CRON for DURATION in ZONE")
    return {name: part for name, part in found.groupdict().items() if part is not None}
