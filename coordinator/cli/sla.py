"""`rollcall sla …`: which promises about orders are broken."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.errors import UsageError
from shared.orders import SweepReport
from shared.terminal import print_json

app = typer.Typer(help="Promises about orders, and who broke them.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Promises about orders, and who broke them."""


@app.command()
def sweep(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look only: note nothing, tell nobody.")
    ] = False,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="Note what is late, and tell nobody.")
    ] = False,
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell who is to know, whatever sla.record_only says.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Look at so many open orders, the oldest first.")
    ] = 1000,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Look for orders that are late. Without an option it does what `sla.record_only` says."""
    if sum((dry_run, record_only, notify)) > 1:
        raise UsageError("--dry-run, --record-only and --notify exclude each other")
    asked = {"dry_run": dry_run, "limit": limit}
    asked |= {"record_only": record_only} if record_only or notify else {}
    report = SweepReport.from_value(Client(config).post("/v1/sla/sweeps", asked))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    sys.stdout.write(
        f"scanned={report.scanned} breaches={report.breaches} messages={report.messages}\n"
    )
    for each in report.found:
        words = "new" if each.new else "known"
        told = f"; told {', '.join(each.told)}" if each.told else ""
        sys.stdout.write(f"  {each.order} {each.kind} ({words}): {each.reason}{told}\n")
