"""`rollcall rollout …`"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.errors import NotFoundError, UnavailableError
from shared.rollout import FleetView, NodeState, Rollout, RolloutState
from shared.terminal import EXIT_HALTED, EXIT_TIMED_OUT, print_json, print_table, say

app = typer.Typer(help="The move of the fleet to a release.", no_args_is_help=True)


def describe(rollout: Rollout) -> list[str]:
    """One line a node: wave, name, role, state, and what it waits for."""
    return [
        f"wave {node.wave + 1}  {node.name:12} {node.role:8} {node.state:12} {node.reason}".rstrip()
        for node in rollout.nodes
    ]


def describe_plan(rollout: Rollout) -> list[str]:
    """With what a rollback of each node would mean."""
    lines = []
    for node, line in zip(rollout.nodes, describe(rollout), strict=True):
        lines.append(line)
        way = node.way_back
        if way is not None:
            word = "way back" if way.possible else "NO WAY BACK"
            size = f"{way.snapshot_bytes >> 20} MiB to copy, about {way.snapshot_s:.0f} s"
            lines.append(f"        {word}: {'; '.join(way.reasons)}; {size}")
    return lines


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """The last rollout, with the reason for every node."""
    view = Client(config).watch(0)
    rollout = _must(view)
    if as_json:
        print_json(rollout.model_dump(mode="json"))
        return
    say(f"rollout {rollout.id} to {rollout.label}, {rollout.strategy}: {rollout.state}")
    if rollout.reason:
        say(f"  {rollout.reason}")
    rows = [
        [str(node.wave + 1), node.name, node.role, node.state, node.reason]
        for node in rollout.nodes
    ]
    print_table(["WAVE", "NODE", "ROLE", "STATE", "REASON"], rows, empty="no nodes")


@app.command()
def watch(
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds; 0 is never.")] = 0,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Follow the rollout to its end. Exit code 0 succeeded, 4 halted, 5 timed out.

    One line for every change; with --json the fleet as one document when it has ended.
    """
    import time

    client, shown, generation = Client(config), "", 0
    ends = time.monotonic() + timeout if timeout else None
    while True:
        try:
            view = client.watch(generation)
        except UnavailableError as error:
            say(f"{error.message}; trying again")
            time.sleep(1)
            continue
        generation, rollout = view.generation, _must(view)
        lines = "\n".join(describe(rollout))
        if lines != shown:
            for line in sorted(set(lines.splitlines()) - set(shown.splitlines())):
                say(line) if as_json else sys.stdout.write(line + "\n")
            sys.stdout.flush()
            shown = lines
        moving = any(node.state is NodeState.MOVING for node in rollout.nodes)
        if rollout.state is not RolloutState.RUNNING and not moving:
            break
        if ends is not None and time.monotonic() > ends:
            raise typer.Exit(EXIT_TIMED_OUT)
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        say(f"{rollout.state} {rollout.reason}".rstrip())
    if rollout.state is RolloutState.HALTED:
        raise typer.Exit(EXIT_HALTED)


def _must(view: FleetView) -> Rollout:
    if view.rollout is None:
        raise NotFoundError(
            "there was no rollout yet", remedy="begin one: rollcall target set RELEASE"
        )
    return view.rollout
