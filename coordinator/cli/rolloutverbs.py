"""`rollcall rollout pause, resume, abort, retry, skip, promote, undo`: what changes one that has begun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import node_name, rollout_id
from coordinator.cli.planview import can_be_aborted, describe_abort, describe_plan
from coordinator.cli.rollout import (
    ReasonOption,
    RolloutArgument,
    app,
    find,
    make_plan,
    show,
)
from shared.fleetsettings import Strategy
from shared.rollout import Rollout
from shared.terminal import confirm, print_json, say

__all__ = ["app"]


def _verb(
    config: Path, rollout: str | None, verb: str, body: dict[str, Any], *, as_json: bool
) -> None:
    client = Client(config)
    id_ = rollout_id(rollout) if rollout is not None else find(client, None).id
    client.post(f"/v1/rollouts/{id_}/{verb}", body)
    show(find(client, id_), as_json=as_json)


def _names(nodes: list[str] | None) -> list[str]:
    return [node_name(each) for each in nodes or []]


@app.command()
def pause(
    rollout: RolloutArgument = None,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let nothing new begin. What moves goes on to its end."""
    _verb(config, rollout, "pause", {"reason": reason}, as_json=as_json)


@app.command()
def resume(
    rollout: RolloutArgument = None,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a paused or halted rollout go on. Refused while what stopped it still would."""
    _verb(config, rollout, "resume", {"reason": reason}, as_json=as_json)


@app.command()
def abort(
    rollout: RolloutArgument = None,
    reason: ReasonOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would come of each node; end nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End a rollout. Orders are taken back: before its outage a node drops one, later it goes back.

    Nodes that have moved stay where they are; `rollcall rollout undo` takes them back.
    """
    found = find(Client(config), rollout)
    if dry_run and as_json:
        print_json(found.model_dump(mode="json"))
    elif dry_run or not yes:
        for line in describe_abort(found):
            say(line)
    if dry_run:
        return
    if not yes and can_be_aborted(found):
        confirm(f"abort rollout {found.id}?")
    _verb(config, found.id, "abort", {"reason": reason}, as_json=as_json)


@app.command()
def retry(
    nodes: Annotated[
        list[str] | None, typer.Argument(help="Which nodes; all that failed where none is named.")
    ] = None,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Give nodes of the newest rollout that failed a new order."""
    _verb(config, None, "retry", {"nodes": _names(nodes), "reason": reason}, as_json=as_json)


@app.command()
def skip(
    nodes: Annotated[list[str], typer.Argument(help="Which nodes.")],
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let the newest rollout go on without these nodes."""
    _verb(config, None, "skip", {"nodes": _names(nodes), "reason": reason}, as_json=as_json)


@app.command()
def promote(
    rollout: RolloutArgument = None,
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End the soak of the wave that is watched; its agents watch on."""
    _verb(config, rollout, "promote", {"reason": reason}, as_json=as_json)


@app.command()
def undo(
    rollout: RolloutArgument = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this node; can be said again.")
    ] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="In which order nodes move.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, begin nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take every node that a rollout has moved back to what it ran before: a rollout like any other.

    Tree, plugins, configuration, state and weight come back from each node's bookmark; what was written since
    is set aside.
    """
    client, names = Client(config), _names(only)
    asked = {"undo": find(client, rollout).id, "only": names, "strategy": strategy}
    made = make_plan(client, asked)
    shown = describe_plan(made)
    if dry_run or made.refusals:
        if as_json:
            print_json(made.model_dump(mode="json"))
        else:
            sys.stdout.write("".join(f"{line}\n" for line in shown))
        raise typer.Exit(1 if made.refusals else 0)
    for line in shown:
        say(line)
    if not yes:
        confirm("undo it?")
    begun = Rollout.from_value(client.post("/v1/rollouts", {"plan": made.sha256}))
    show(find(client, begun.id), as_json=as_json)
