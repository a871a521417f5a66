"""`rollcall target …`"""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import seconds_or_none
from coordinator.cli.planview import describe_begun
from shared.fleetsettings import Strategy
from shared.rollout import Rollout
from shared.terminal import print_json, say

app = typer.Typer(help="Which release the fleet should run.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Which release the fleet should run."""


@app.command("set")
def set_target(
    release: Annotated[str, typer.Argument(help="A release's name or id.")],
    strategy: Annotated[Strategy | None, typer.Option(help="In which order nodes move.")] = None,
    soak: Annotated[
        str | None, typer.Option(help="How long each node is watched: 45s, 5m, 2h.")
    ] = None,
    stop_the_world: Annotated[
        bool,
        typer.Option(
            "--stop-the-world",
            help="For versions that may not live side by side: all at once, nothing serves meanwhile.",
        ),
    ] = False,
    yes_really: Annotated[
        bool, typer.Option("--yes-really", help="Watch canaries for less than 30 minutes.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, begin nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan a rollout and begin it in one: `rollcall rollout plan` and `start` have more to say.

    What is not said comes from the fleet's settings. The pending flag goes to the first wave, then on as each wave
    proves itself.
    """
    body = {
        "release": release,
        "strategy": strategy,
        "soak_s": seconds_or_none("--soak", soak),
        "stop_the_world": stop_the_world,
        "yes_really": yes_really,
        "set_by": getpass.getuser(),
        "dry_run": dry_run,
    }
    rollout = Rollout.from_value(Client(config).post("/v1/targets", body))
    if as_json:
        print_json(rollout.model_dump(mode="json"))
        return
    say("the plan, not begun:" if dry_run else f"rollout {rollout.id} begins")
    for line in describe_begun(rollout):
        say(f"  {line}")
