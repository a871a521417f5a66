"""Amounts of disk space as operators write them: `10%`, `20GiB`, `500MiB`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_PATTERN = re.compile(r"(\d{1,9})(%|MiB|GiB|TiB)")


@dataclass(frozen=True)
class Watermark:
    """A part of the disk in percent, or a number of bytes; the other one is 0."""

    percent: int = 0
    bytes: int = 0

    def of(self, total: int) -> int:
        """Bytes, on a disk of `total` bytes."""
        return self.bytes or total * self.percent // 100


def parse_watermark(value: Any) -> Watermark:
    """Raises ValueError for anything but a percentage below 100 or an amount with its unit."""
    if isinstance(value, Watermark):
        return value
    match = _PATTERN.fullmatch(str(value).strip())
    if match is None or (match[2] == "%" and int(match[1]) >= 100):
        raise ValueError(f"{value!r} is no amount of disk space; write 10%, 500MiB or 20GiB")
    number = int(match[1])
    return (
        Watermark(percent=number) if match[2] == "%" else Watermark(bytes=number * _UNITS[match[2]])
    )


WatermarkText = Annotated[Watermark, BeforeValidator(parse_watermark)]
