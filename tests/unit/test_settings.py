"""`rollcall config`: what is set, by whom, and what is refused with which words."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
from typer.testing import CliRunner, Result

from coordinator.cli import app
from coordinator.cli.config import set_setting
from coordinator.settings import SettingsBook
from coordinator.store.database import Database
from coordinator.store.settings import SettingQueries
from shared.clock import SystemClock
from shared.errors import BadInputError, NotFoundError, RollcallError, UsageError
from shared.fleetsettings import FleetSettings, Strategy, Window
from shared.http import RefusedError
from shared.settingkeys import as_text, flat, nested, setting_fields, wanted
from tests.support.coordinatorkit import Running

WINDOW = "0 2 * * 1-5 for 3h in Europe/Berlin"

TEXTS = {
    "latest": "2026.9.6+1",
    "min_supported": "2026.9.1",
    "strategy": "rolling",
    "batch": "10%",
    "max_per_site": "2",
    "soak": "45m",
    "steps": "1,10,100",
    "failure_pause": "3",
    "windows": f"{WINDOW}; 0 4 * * 6 for 8h in UTC",
    "blackouts": "2026-12-24,2026-12-25",
    "frozen": "the audit",
    "validation": "fail",
    "sla.enabled": "false",
    "sla.every_seconds": "60",
    "sla.fyi_agents": "mac1,mac2",
}


def config(running: Running, *words: str) -> Result:
    file = str(running.settings.paths.client)
    return CliRunner().invoke(app, ["config", *words, "--config", file])


@pytest.mark.parametrize("key", TEXTS)
def test_what_is_shown_can_be_set_again(key: str) -> None:
    settings = FleetSettings.model_validate(nested({key: TEXTS[key]}))
    assert settings != FleetSettings()
    assert as_text(key, flat(settings)[key]) == TEXTS[key]


@pytest.mark.parametrize("key", setting_fields())
def test_each_default_goes_through_its_text(key: str) -> None:
    """Those that are set at all: an absent one is unset instead."""
    default = flat(FleetSettings())[key]
    text = as_text(key, default)
    if default is None:
        assert text == "-"
        return
    written = {} if text == '""' else {key: text}
    assert flat(FleetSettings.model_validate(nested(written)))[key] == default
    assert wanted(key)


def test_a_window_is_read_from_one_line() -> None:
    settings = FleetSettings.model_validate({"windows": WINDOW})
    assert settings.windows == [
        Window.model_validate({"cron": "0 2 * * 1-5", "duration_s": 10800, "tz": "Europe/Berlin"})
    ]
    assert FleetSettings.model_validate({"windows": "none"}).windows == []


@pytest.mark.parametrize(
    ("key", "given", "complaint"),
    [
        ("windows", "0 25 * * 1 for 3h", "hour"),
        ("windows", "0 2 * * for 3h", "five fields"),
        ("windows", "0 2 * * 5-1 for 3h", "weekday"),
        ("windows", "*/0 2 * * 1 for 3h", "minute"),
        ("windows", "0 2 * * 1", "CRON for DURATION in ZONE"),
        ("windows", "0 2 * * 1 for 3h in Mars/Olympus", "no time zone is called 'Mars/Olympus'"),
        ("windows", "0 2 * * 1 for 3h in ../../etc/passwd", "pattern"),
        ("soak", "soon", "not a duration"),
        ("soak", "8d", "less than or equal"),
        ("steps", "5,1,100", "the steps rise"),
        ("steps", "1,50", "the last is 100"),
        ("batch", "0", "neither a number of nodes"),
        ("strategy", "yolo", "'immediate', 'rolling' or 'canary'"),
        ("failure_pause", "50", "failure_pause is above failure_halt"),
        ("sla.every_seconds", "1", "greater than or equal to 10"),
        ("blackouts", "christmas", "valid date"),
        ("latest", {"a": 1}, "string"),
    ],
)
async def test_a_wrong_value_is_refused_in_words(
    running: Running, key: str, given: object, complaint: str
) -> None:
    """It names the key, what was given, and what is wanted; nothing is written."""
    body = json.dumps({"value": given}).encode()
    with pytest.raises(RefusedError) as refused:
        await running.client.ask("PUT", f"/v1/settings/{key}", body)
    assert refused.value.message.startswith(f"{key}: ")
    assert complaint in refused.value.message
    assert "given was" in refused.value.message
    assert refused.value.remedy == f"wanted: {wanted(key)}"
    assert (refused.value.status, refused.value.exit_code) == (400, 2)
    assert (await running.get("/v1/settings/history"))["changes"] == []


async def test_who_changed_what_when_is_kept_over_a_restart(running: Running) -> None:
    def use() -> list[Result]:
        return [
            config(running, "set", "steps", "1,50,100"),
            config(running, "set", "windows", WINDOW),
            config(running, "set", "steps", "1,20,100"),
            config(running, "unset", "windows"),
        ]

    results = await asyncio.to_thread(use)
    assert [result.exit_code for result in results] == [0] * 4
    assert "steps changed from 1,5,25,50,100 to 1,50,100" in results[0].stderr
    assert "windows changed from none to 0 2 * * 1-5 for 3h in Europe/Berlin" in results[1].stderr
    await running.restart()
    listed = {each["key"]: each for each in (await running.get("/v1/settings"))["settings"]}
    assert listed["steps"]["value"] == [1, 20, 100]
    assert listed["steps"]["by"].startswith("first")
    assert (listed["windows"]["value"], listed["windows"]["by"]) == ([], None)
    shown = await asyncio.to_thread(config, running, "history", "steps")
    rows = [line.split("\t")[2:] for line in shown.stdout.splitlines()]
    assert rows == [
        ["KEY", "BEFORE", "AFTER"],
        ["steps", "1,50,100", "1,20,100"],
        ["steps", "1,5,25,50,100", "1,50,100"],
    ]
    (last, *_) = (await running.get("/v1/settings/history?limit=1"))["changes"]
    assert (last["key"], last["to_default"]) == ("windows", True)


async def test_a_dry_run_checks_and_changes_nothing(running: Running) -> None:
    tried = await asyncio.to_thread(config, running, "set", "batch", "25%", "--dry-run")
    assert "batch would change from 1 to 25%" in tried.stderr
    shown = await asyncio.to_thread(config, running, "get", "batch")
    assert shown.stdout == "1\n"
    as_json = await asyncio.to_thread(config, running, "get", "batch", "--json")
    assert json.loads(as_json.stdout)["wanted"] == wanted("batch")


async def test_an_unknown_key_is_told_with_the_nearest(running: Running) -> None:
    wrong = await asyncio.to_thread(config, running, "set", "stepps", "1,100")
    assert isinstance(wrong.exception, NotFoundError), "exit code 1: well said, and not there"
    assert "did you mean 'steps'" in str(wrong.exception)
    with pytest.raises(RefusedError) as refused:
        await running.client.ask("PUT", "/v1/settings/stepps", b'{"value": 1}')
    assert refused.value.status == 404
    assert set_setting.__doc__


async def test_a_value_may_be_json_too(running: Running) -> None:
    window = '[{"cron": "0 2 * * 1", "duration_s": "3h"}]'
    result = await asyncio.to_thread(config, running, "set", "windows", window)
    assert "to 0 2 * * 1 for 3h in UTC" in result.stderr
    broken = await asyncio.to_thread(config, running, "set", "windows", "[{")
    assert isinstance(broken.exception, UsageError)
    assert "begins as JSON" in str(broken.exception)


def test_what_is_wanted_is_said_in_words() -> None:
    """Nothing of Python's types."""
    said = {key: wanted(key) for key in setting_fields()}
    assert said["validation"] == "one of warn, fail"
    assert said["strategy"] == "one of immediate, rolling, canary"
    assert said["sla.every_seconds"] == "a whole number from 10 to 86400"
    assert said["soak"] == "a duration such as 45s, 5m, 2h or 1d from 0s to 7d"
    assert said["frozen"] == "text of at most 500 characters"
    assert not any(word in text for text in said.values() for word in ("<", "None", "typing"))


async def test_what_is_not_understood_any_more_counts_as_not_set(running: Running) -> None:
    """A setting of another version: the others still count, and the engine gets a whole model."""
    await asyncio.to_thread(config, running, "set", "batch", "2")

    def meddle() -> None:
        with sqlite3.connect(running.settings.paths.database) as file:
            for key, value in (("strategy", '"blue-green"'), ("soak", "{"), ("gone", "1")):
                file.execute("INSERT INTO settings VALUES (?, ?, 1, 'later')", (key, value))

    await running.stop()
    await asyncio.to_thread(meddle)
    database = await Database.open(running.settings.paths.database)
    try:
        current = await SettingsBook(
            SettingQueries(database), SystemClock(), lambda: None
        ).current()
    finally:
        await database.close()
    assert (current.batch, current.strategy, current.soak) == ("2", Strategy.CANARY, 7200)


async def test_a_change_is_told_and_read_from_memory_until_then(running: Running) -> None:
    told: list[None] = []
    await running.stop()
    database = await Database.open(running.settings.paths.database)
    try:
        book = SettingsBook(SettingQueries(database), SystemClock(), lambda: told.append(None))
        first = await book.current()
        assert await book.current() is first
        await book.put("block_after", 5, "ann", dry_run=True)
        assert (await book.current(), told) == (first, [])
        await book.put("block_after", 5, "ann")
        assert ((await book.current()).block_after, len(told)) == (5, 1)
        errors: list[type[RollcallError]] = [BadInputError, NotFoundError]
        for error, key in zip(errors, ("block_after", "nothing"), strict=True):
            with pytest.raises(error):
                await book.put(key, "x", "ann")
    finally:
        await database.close()
