"""Cron times, windows, blackout days: strict, and right where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from coordinator.rollout.windows import read_zones, shut
from shared.cron import last_start, next_starts, parse_cron, zone
from shared.errors import BadInputError
from shared.fleetsettings import FleetSettings, Window

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    """A UTC moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def starts(cron: str, after: str, count: int, tz: ZoneInfo | None = None) -> list[str]:
    found = islice(next_starts(parse_cron(cron), tz or ZoneInfo("UTC"), at(after)), count)
    return [f"{datetime.fromtimestamp(each, UTC):%m-%d %H:%M}" for each in found]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 2 * * *", ["11-21 02:00", "11-22 02:00"]),
        ("*/20 3 * * *", ["11-21 03:00", "11-21 03:20", "11-21 03:40"]),
        ("0 2 * * sun", ["11-22 02:00", "11-29 02:00"]),
        ("0 2 * * 7", ["11-22 02:00", "11-29 02:00"]),
        ("0 2 * * mon-fri", ["11-23 02:00", "11-24 02:00"]),
        ("30 1,13 1 * *", ["12-01 01:30", "12-01 13:30", "01-01 01:30"]),
        ("0 0 29 feb *", ["02-29 00:00"]),
        ("0 4 1 * tue", ["11-24 04:00", "12-01 04:00", "12-08 04:00"]),
        ("5-10/5 0-23/12 * 12 *", ["12-01 00:05", "12-01 00:10", "12-01 12:05"]),
    ],
)
def test_times(cron: str, expected: list[str]) -> None:
    assert starts(cron, "2026-11-20T23:59", len(expected)) == expected


@pytest.mark.parametrize(
    "cron",
    [
        *("", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("* * * * * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@daily", "1- * * * *"),
        *("1,,2 * * * *", "-1 * * * *", "* * * * mondayish", "\u0661 * * * *"),
    ],
)
def test_what_is_not_understood_is_refused(cron: str) -> None:
    with pytest.raises(BadInputError):
        parse_cron(cron)
    with pytest.raises(ValidationError):
        Window(cron=cron, duration_s=60)


def test_local_times_follow_the_zone_through_its_changes() -> None:
    assert starts("0 1 * * *", "2026-10-24T12:00", 2, BERLIN) == ["10-24 23:00", "10-26 00:00"]
    assert starts("30 2 * * *", "2026-03-28T12:00", 2, BERLIN) == ["03-29 01:30", "03-30 00:30"], (
        "02:30 does not exist on that day"
    )
    assert starts("30 2 * * *", "2026-10-24T12:00", 2, BERLIN) == ["10-25 00:30", "10-26 01:30"], (
        "02:30 comes twice on that day, and counts once"
    )


def test_a_window_is_open_from_its_start_for_its_duration() -> None:
    cron, utc = parse_cron("0 23 * * *"), ZoneInfo("UTC")
    assert last_start(cron, utc, at("2026-11-21T23:00"), 7200) == at("2026-11-21T23:00")
    assert last_start(cron, utc, at("2026-11-22T00:59"), 7200) == at("2026-11-21T23:00")
    assert last_start(cron, utc, at("2026-11-22T01:00"), 7200) is None
    weekly = parse_cron("0 0 * * mon")
    assert last_start(weekly, utc, at("2026-11-22T23:59"), 7 * 86400) == at("2026-11-16T00:00")


def settings(*windows: dict[str, object], blackouts: tuple[str, ...] = ()) -> FleetSettings:
    return FleetSettings.model_validate({"windows": list(windows), "blackouts": list(blackouts)})


NIGHT = {"cron": "0 2 * * *", "duration_s": 3600, "tz": "Europe/Berlin"}


def test_any_window_is_enough_and_the_next_is_named() -> None:
    both = settings(NIGHT, {"cron": "0 12 * * *", "duration_s": 600})
    assert shut(both, at("2026-11-21T01:30")) == ""
    assert shut(both, at("2026-11-21T12:05")) == ""
    assert "the next opens 2026-11-22 01:00 UTC" in shut(both, at("2026-11-21T13:00"))


def test_blackout_days_are_days_of_the_windows_zone() -> None:
    dark = settings(NIGHT, blackouts=("2026-11-21",))
    assert "2026-11-21 is a blackout day (Europe/Berlin)" in shut(dark, at("2026-11-21T01:30"))
    assert "the next opens 2026-11-22 01:00 UTC" in shut(dark, at("2026-11-20T03:00"))
    always = settings(blackouts=("2026-11-21",))
    assert shut(always, at("2026-11-21T23:59")) == "2026-11-21 is a blackout day (UTC)"
    assert shut(always, at("2026-11-22T00:00")) == ""


def test_a_zone_that_nobody_knows_keeps_its_window_shut() -> None:
    odd = settings({**NIGHT, "tz": "Europe/Atlantis"})
    read_zones(odd)
    assert "'Europe/Atlantis' is no time zone" in shut(odd, at("2026-11-21T01:30"))
    with pytest.raises(BadInputError):
        zone("../../etc/passwd")


def test_without_windows_it_is_always_open() -> None:
    assert shut(FleetSettings(), at("2026-11-21T01:30")) == ""
