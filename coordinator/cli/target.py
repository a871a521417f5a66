"""`rollcall target …`"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.rollout import describe_plan
from shared.durations import parse_duration
from shared.errors import UsageError
from shared.rollout import Rollout, Strategy
from shared.terminal import print_json, say

app = typer.Typer(help="Which release the fleet should run.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Which release the fleet should run."""


@app.command("set")
def set_target(
    release: Annotated[str, typer.Argument(help="A release's name or id.")],
    strategy: Annotated[
        Strategy, typer.Option(help="In which order nodes move.")
    ] = Strategy.CANARY,
    soak: Annotated[str, typer.Option(help="How long each node is watched: 45s, 5m, 2h.")] = "30m",
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, begin nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Begin a rollout: the pending flag goes to the first wave, then on as each wave proves itself."""
    try:
        seconds = parse_duration(soak)
    except ValueError as error:
        raise UsageError(f"--soak: {error}") from error
    body = {
        "release": release,
        "strategy": strategy,
        "soak_s": seconds,
        "set_by": getpass.getuser(),
        "dry_run": dry_run,
    }
    rollout = Rollout.from_value(Client(config).post("/v1/targets", body))
    if as_json:
        print_json(rollout.model_dump(mode="json"))
        return
    say("the plan, not begun:" if dry_run else f"rollout {rollout.id} begins")
    for line in describe_plan(rollout):
        say(f"  {line}")
