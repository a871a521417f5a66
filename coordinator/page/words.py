"""Numbers and times as the page says them. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from coordinator.saying import span
from shared.sparkline import in_words

NONE = "-"
TONES: Mapping[str, str] = {
    "online": "good",
    "green": "good",
    "pass": "good",
    "done": "good",
    "succeeded": "good",
    "success": "good",
    "good": "good",
    "completed": "good",
    "active": "good",
    "passed": "good",
    "cleared": "good",
    "degraded": "warn",
    "warn": "warn",
    "unknown": "warn",
    "paused": "warn",
    "aborting": "warn",
    "medium": "warn",
    "expired": "warn",
    "rolling_back": "warn",
    "returning": "warn",
    "draining": "warn",
    "offline": "bad",
    "error": "bad",
    "red": "bad",
    "fail": "bad",
    "failed": "bad",
    "halted": "bad",
    "rolled_back": "bad",
    "stuck": "bad",
    "critical": "bad",
    "high": "bad",
    "open": "bad",
    "upgrading": "busy",
    "moving": "busy",
    "running": "busy",
    "pending": "busy",
    "claimed": "busy",
    "in_progress": "busy",
    "provisioning": "busy",
    "ordered": "busy",
}
"""How a state is coloured. Its word always stands beside the colour."""


def tone(state: object) -> str:
    return TONES.get(str(state), "calm")


def spoken(state: object) -> str:
    """`rolled_back` as people say it."""
    return str(state).replace("_", " ")


def moment(at: float | None) -> str:
    """UTC, to the second: the page is read in many zones, and beside logs."""
    return NONE if at is None else time.strftime("%Y-%m-%d %H:%M:%S Z", time.gmtime(at))


def machine_time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def clock_time(at: float) -> str:
    return time.strftime("%H:%M:%S Z", time.gmtime(at))


def age(at: float | None, now: float) -> str:
    """`3 min`: how long ago. What is to come reads as `in 3 min`."""
    if at is None:
        return NONE
    if at > now + 1:
        return f"in {span(at - now)}"
    return span(now - at)


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}\N{NO-BREAK SPACE}%"


def size(count: float | None) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    if count is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def known(value: object) -> str:
    """What is empty reads as a dash."""
    return NONE if value is None or value == "" else str(value)


def hash_of(text: str | None) -> str:
    return NONE if not text else text[:12]


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.1f} s" if value < 10 else span(value)


def queried(path: str, **changes: object) -> str:
    """A path with a query; what is empty is left out."""
    kept = {name: str(value) for name, value in changes.items() if value not in ("", None)}
    return f"{path}?{urlencode(kept)}" if kept else path


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 node`, `3 nodes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(names: list[str], most: int = 8) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or NONE


FILTERS: dict[str, Callable[..., Any]] = {
    "tone": tone,
    "spoken": spoken,
    "moment": moment,
    "machine_time": machine_time,
    "clock_time": clock_time,
    "age": age,
    "percent": percent,
    "size": size,
    "known": known,
    "hash": hash_of,
    "seconds": seconds,
    "duration": span,
    "queried": queried,
    "counted": counted,
    "listed": listed,
    "in_words": in_words,
}
