"""`rollcall node …`"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.durations import parse_duration
from shared.errors import UsageError
from shared.rollout import NodeView
from shared.terminal import print_json, print_table

app = typer.Typer(help="The nodes of the fleet.", no_args_is_help=True)
tokens = typer.Typer(help="Tokens that let a node join.", no_args_is_help=True)
app.add_typer(tokens, name="token")


@app.command("list")
def list_nodes(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every node: what it runs, whether it is ready, what it waits for."""
    answer = Client(config).get("/v1/nodes")
    if as_json:
        print_json(answer)
        return
    nodes = [NodeView.from_value(each) for each in answer["nodes"]]
    rows = [
        [
            node.name,
            node.role,
            node.status,
            node.version_running or "-",
            "never" if node.age_s is None else f"{node.age_s:.0f} s ago",
            node.waiting or node.reason or "",
        ]
        for node in nodes
    ]
    print_table(
        ["NODE", "ROLE", "READINESS", "OPENCLAW", "HEARD", "NOTE"],
        rows,
        empty="no node has joined; make a token with: rollcall node token create",
    )


@tokens.callback()
def group() -> None:
    """Tokens that let a node join."""


@tokens.command("create")
def create_token(
    ttl: Annotated[str, typer.Option(help="How long it is good for: 45s, 5m, 2h, 1d.")] = "1h",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make a token for one node; it carries the fleet's hash and is used up by the first join."""
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from error
    answer = Client(config).post("/v1/node-tokens", {"ttl_s": seconds})
    if as_json:
        print_json(answer)
    else:
        sys.stdout.write(f"{answer['token']}\n")
