"""`rollcall config …`: what is set for the whole fleet."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.saying import moment
from shared.errors import UsageError
from shared.settingkeys import Setting, SettingChange, must_be_key, wanted
from shared.terminal import print_json, print_table, say

app = typer.Typer(help="What is set for the whole fleet.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(help="As `rollcall config list` shows it.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check it, change nothing.")]


@app.callback()
def group() -> None:
    """What is set for the whole fleet."""


@app.command("list")
def list_settings(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every setting: its value, and who set it when; a default has been set by nobody."""
    answer = Client(config).get("/v1/settings")
    if as_json:
        print_json(answer)
        return
    rows = [
        [each.key, each.text, each.by or "(default)", "" if each.at is None else moment(each.at)]
        for each in map(Setting.from_value, answer["settings"])
    ]
    print_table(["KEY", "VALUE", "SET BY", "SET AT"], rows, empty="none")


@app.command("get")
def get_setting(
    key: KeyArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """One setting's value."""
    answer = Client(config).get(f"/v1/settings/{quote(must_be_key(key), safe='')}")
    if as_json:
        print_json(answer)
    else:
        sys.stdout.write(f"{Setting.from_value(answer).text}\n")


@app.command("set")
def set_setting(
    key: KeyArgument,
    value: Annotated[str, typer.Argument(help="Its new value; lists with commas, windows with ;")],
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set one. `rollcall config get KEY --json` says what is wanted.

    rollcall config set windows '0 2 * * 1-5 for 3h in Europe/Berlin'
    """
    _put(key, _value(key, value), config, dry_run=dry_run, as_json=as_json)


@app.command("unset")
def unset_setting(
    key: KeyArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take one back: its default counts again."""
    _put(key, None, config, dry_run=dry_run, as_json=as_json)


@app.command("history")
def show_history(
    key: Annotated[str | None, typer.Argument(help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 100,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Who changed what when, newest first."""
    path = "/v1/settings/history"
    if key is not None:
        path = f"/v1/settings/{quote(must_be_key(key), safe='')}/history"
    answer = Client(config).get(f"{path}?limit={limit}")
    if as_json:
        print_json(answer)
        return
    rows = [
        [moment(each.at), each.by, each.key, each.before, _after(each)]
        for each in map(SettingChange.from_value, answer["changes"])
    ]
    print_table(["WHEN", "WHO", "KEY", "BEFORE", "AFTER"], rows, empty="nothing was ever set")


def _value(key: str, text: str) -> Any:
    """Text as it is; what begins as JSON does is JSON. Raises UsageError."""
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{key}: {text!r} begins as JSON and is none: {error}", remedy=f"wanted: {wanted(key)}"
        ) from error


def _put(key: str, value: Any, config: Path, *, dry_run: bool, as_json: bool) -> None:
    path = f"/v1/settings/{quote(must_be_key(key), safe='')}"
    answer = Client(config).put(path, {"value": value, "dry_run": dry_run})
    if as_json:
        print_json(answer)
        return
    change = SettingChange.from_value(answer)
    would = "would change" if dry_run else "changed"
    say(f"{change.key} {would} from {change.before} to {_after(change)}")


def _after(change: SettingChange) -> str:
    return f"{change.after} (default)" if change.to_default else change.after
