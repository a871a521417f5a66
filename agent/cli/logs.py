"""`rollcall-agent logs`: which errors the gateway logs, by their forms."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent
from shared.terminal import print_json, print_table, say

app = typer.Typer()


@app.command()
def logs(
    new_errors: Annotated[
        bool,
        typer.Option("--new-errors", help="Only what the release before did not have."),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """List the errors in the gateway's logs since its release was switched to: how often each form came,
    since when, and an example. What looks like a secret is hidden."""
    from agent.readiness.logs.forms import MAX_FILE, LogReport

    report = LogReport.from_bytes(ask_agent(home, "GET", "/v1/logs"), max_bytes=MAX_FILE)
    shown = [form for form in report.forms if form.new or not new_errors]
    if as_json:
        value = report.model_dump(mode="json")
        print_json({**value, "forms": [form.model_dump(mode="json") for form in shown]})
        return
    for refused in report.refused:
        say(f"not read: {refused}")
    if report.skipped:
        say(f"{report.skipped} bytes were passed over")
    rows = [
        [
            str(form.count),
            "new" if form.new else "",
            _time(form.first),
            _time(form.last),
            form.example,
        ]
        for form in shown
    ]
    empty = "no new errors" if new_errors else "no errors"
    print_table(["COUNT", "", "FIRST", "LAST", "EXAMPLE"], rows, empty=empty)
    if new_errors and report.before is None:
        sys.stdout.write("there is no release before this one to compare with\n")
    elif report.more:
        sys.stdout.write(f"and {report.more} errors of further forms\n")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
