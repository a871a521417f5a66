"""Five-field cron times: when a window opens. Strict: what is not understood is refused.

Fields are minute, hour, day of the month, month and day of the week, each a list of `*`, `n`, `a-b`, `*/s` or
`a-b/s`; months and days of the week have their English names too, and Sunday is 0 or 7. As in cron(5), a day
counts where either day field fits when both are restricted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.errors import BadInputError

_BOUNDS: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES: Final = ("minute", "hour", "day", "month", "weekday")
_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS: Final[tuple[dict[str, int], ...]] = (
    {},
    {},
    {},
    {name: number for number, name in enumerate(_MONTHS, 1)},
    {name: number for number, name in enumerate(_DAYS)},
)
_PART: Final = re.compile(r"(\*|[0-9a-z]{1,3}(?:-[0-9a-z]{1,3})?)(?:/([0-9]{1,2}))?", re.ASCII)
LOOK_AHEAD_DAYS: Final = 366 * 4 + 1
"""A window on 29 February opens at last within this."""


@dataclass(frozen=True)
class Cron:
    """Times of a day as sorted `(hour, minute)`; `days` and `weekdays` are None where they are `*`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def times(self) -> list[time]:
        return [
            time(hour, minute) for hour in sorted(self.hours) for minute in sorted(self.minutes)
        ]

    def fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_month = self.days is not None and day.day in self.days
        by_week = self.weekdays is not None and day.isoweekday() % 7 in self.weekdays
        if self.days is None and self.weekdays is None:
            return True
        return by_month or by_week


@functools.lru_cache(maxsize=256)
def parse_cron(text: str) -> Cron:
    """Raises BadInputError that names the field."""
    fields = text.lower().split()
    if len(fields) != len(_BOUNDS):
        raise BadInputError(
            f"{text!r} is not a cron time",
            remedy="five fields: minute, hour, day, month, weekday, such as `0 2 * * sun`",
        )
    values = [_field(number, field) for number, field in enumerate(fields)]
    minutes, hours, days, months, weekdays = values
    return Cron(
        minutes=minutes,
        hours=hours,
        days=None if fields[2] == "*" else days,
        months=months,
        weekdays=None if fields[4] == "*" else frozenset(day % 7 for day in weekdays),
    )


def check_cron(text: str) -> str:
    """Raises ValueError, as pydantic's validators do."""
    try:
        parse_cron(text)
    except BadInputError as error:
        raise ValueError(str(error)) from error
    return text


def _field(number: int, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _bad(number, part)
        first, last = _range(number, match[1], stepped=match[2] is not None)
        step = int(match[2] or 1)
        if step < 1:
            raise _bad(number, part)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _range(number: int, text: str, *, stepped: bool) -> tuple[int, int]:
    low, high = _BOUNDS[number]
    if text == "*":
        return low, high
    begin, _, end = text.partition("-")
    first = _value(number, begin)
    last = _value(number, end) if end else (high if stepped else first)
    if not low <= first <= last <= high:
        raise _bad(number, text)
    return first, last


def _value(number: int, text: str) -> int:
    named = _WORDS[number].get(text)
    if named is not None:
        return named
    if not text.isdigit():
        raise _bad(number, text)
    return int(text)


def _bad(number: int, part: str) -> BadInputError:
    low, high = _BOUNDS[number]
    return BadInputError(
        f"{part!r} is no {_NAMES[number]} of a cron time", remedy=f"{low} to {high}"
    )


@functools.lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Reads the zone's file once. Raises BadInputError for a zone that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInputError(
            f"{name!r} is no time zone", remedy="such as UTC, Europe/Berlin or America/New_York"
        ) from error


def last_start(cron: Cron, tz: ZoneInfo, now: float, within_s: float) -> float | None:
    """The latest time of `cron` at or before `now` that is less than `within_s` ago; None without one."""
    today = datetime.fromtimestamp(now, tz).date()
    days = int(within_s // 86400) + 2
    for day in (today - timedelta(days=back) for back in range(days)):
        for start in reversed(_starts(cron, tz, day)):
            if start <= now:
                return start if now - start < within_s else None
    return None


def next_starts(cron: Cron, tz: ZoneInfo, now: float) -> Iterator[float]:
    """The times of `cron` after `now`, in order, as far as anybody plans."""
    today = datetime.fromtimestamp(now, tz).date()
    for day in (today + timedelta(days=ahead) for ahead in range(LOOK_AHEAD_DAYS)):
        yield from (start for start in _starts(cron, tz, day) if start > now)


def _starts(cron: Cron, tz: ZoneInfo, day: date) -> list[float]:
    """In seconds since the epoch. A time that the clocks skip begins when they have been put forward; one that
    comes twice begins the first time."""
    if not cron.fits(day):
        return []
    found = {datetime.combine(day, each, tz).astimezone(UTC).timestamp() for each in cron.times()}
    return sorted(found)
