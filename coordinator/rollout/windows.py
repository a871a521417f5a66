"""Whether upgrades may begin now, and when they may next. Pure, but for the zone files that are read once."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from shared.cron import last_start, next_starts, parse_cron, zone
from shared.errors import BadInputError
from shared.fleetsettings import FleetSettings, Window


def shut(settings: FleetSettings, now: float) -> str:
    """Why nothing begins now, and when something may; empty while it may."""
    if not settings.windows:
        today = datetime.fromtimestamp(now, UTC).date()
        return f"{today} is a blackout day (UTC)" if today in settings.blackouts else ""
    reasons = [_shut(window, settings.blackouts, now) for window in settings.windows]
    if "" in reasons:
        return ""
    opens = [
        each for each in (_opens(window, settings, now) for window in settings.windows) if each
    ]
    when = f"the next opens {_say(min(opens))}" if opens else "none opens any more"
    return f"outside the windows ({'; '.join(reasons)}): {when}"


def _shut(window: Window, blackouts: list[date], now: float) -> str:
    try:
        tz, cron = zone(window.tz), parse_cron(window.cron)
    except BadInputError as error:
        return error.message
    if last_start(cron, tz, now, window.duration_s) is None:
        return f"`{window.cron}` {window.tz}"
    today = datetime.fromtimestamp(now, tz).date()
    return f"{today} is a blackout day ({window.tz})" if today in blackouts else ""


def _opens(window: Window, settings: FleetSettings, now: float) -> float | None:
    """The next start of this window that is on no blackout day; None when there is none."""
    try:
        tz, cron = zone(window.tz), parse_cron(window.cron)
    except BadInputError:
        return None
    for start in next_starts(cron, tz, now):
        if _day(start, tz) not in settings.blackouts:
            return start
    return None


def _day(at: float, tz: ZoneInfo) -> date:
    return datetime.fromtimestamp(at, tz).date()


def _say(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def read_zones(settings: FleetSettings) -> None:
    """Have the zone files of all windows in memory. Blocks; unknown zones are named by `shut`."""
    for window in settings.windows:
        try:
            zone(window.tz)
        except BadInputError:
            continue
