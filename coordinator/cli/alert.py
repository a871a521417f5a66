"""`rollcall alert …`"""

from __future__ import annotations

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.terminal import print_json, print_table

app = typer.Typer(help="What people must see to.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """What people must see to."""


@app.command("list")
def list_alerts(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Metadata and certificates that end, nodes that were revoked: nothing that halts a rollout."""
    answer = Client(config).get("/v1/alerts")
    if as_json:
        print_json(answer)
        return
    rows = [[each["where"], each["text"]] for each in answer["alerts"]]
    print_table(["WHERE", "ALERT"], rows, empty="nothing to see to")
