"""Durations as operators write them: `90`, `45s`, `5m`, `2h`, `1d`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def parse_duration(value: Any) -> float:
    """Seconds. Raises ValueError for anything else than a number with an optional unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _PATTERN.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write 45s, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


Duration = Annotated[float, BeforeValidator(parse_duration)]
