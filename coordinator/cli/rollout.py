"""`rollcall rollout …`"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.following import left_alone
from coordinator.cli.given import node_name, rollout_id, seconds, seconds_or_none
from coordinator.cli.planview import (
    COLUMNS,
    describe_plan,
    headline,
    row,
)
from coordinator.cli.watch import Screen, Watch, is_over
from coordinator.saying import moment, span
from shared.canonical import canonical_json, sha256_hex
from shared.clock import SystemClock
from shared.durable import write_durable
from shared.errors import NotFoundError, UsageError
from shared.fleetsettings import Strategy
from shared.rollout import Rollout, RolloutState
from shared.rolloutplan import Plan
from shared.terminal import (
    EXIT_HALTED,
    EXIT_TIMED_OUT,
    print_json,
    print_table,
    run_async,
    say,
)

app = typer.Typer(help="The move of the fleet to a release, and back.", no_args_is_help=True)

RolloutArgument = Annotated[
    str | None, typer.Argument(help="Which rollout; the newest where none is named.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history and the audit log.")]


@app.command()
def plan(
    release: Annotated[
        str | None, typer.Argument(help="A release's name or id; none with --undo.")
    ] = None,
    undo: Annotated[str | None, typer.Option(help="Plan to undo this rollout.")] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="In which order nodes move.")] = None,
    batch: Annotated[
        str | None, typer.Option(help="How many nodes a wave has: 3, or 10% of all.")
    ] = None,
    max_unavailable: Annotated[
        str | None, typer.Option(help="How many nodes may be out at once: 1, or 10% of all.")
    ] = None,
    max_per_site: Annotated[
        int | None, typer.Option(min=0, help="How many of one site; 0 is no limit.")
    ] = None,
    soak: Annotated[
        str | None, typer.Option(help="How long canaries are watched: 45m, 2h.")
    ] = None,
    settle: Annotated[
        str | None, typer.Option(help="How long every other wave is watched: 60s.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="The shares of traffic to give, in percent: 1,5,25,50,100.")
    ] = None,
    step_for: Annotated[str | None, typer.Option(help="How long each share is watched.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this node; can be said again.")
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
    as_json: JsonOption = False,
) -> None:
    """Show what a rollout would do: waves, times, each node's checks, what is refused and why. Begins nothing.

    What is not said comes from the fleet's settings. Exit code 1 when the plan cannot be started.
    """
    asked = {
        "release": release,
        "undo": None if undo is None else rollout_id(undo),
        "strategy": strategy,
        "batch": batch,
        "max_unavailable": max_unavailable,
        "max_per_site": max_per_site,
        "soak": seconds_or_none("--soak", soak),
        "settle": seconds_or_none("--settle", settle),
        "steps": _steps(steps),
        "step_for": seconds_or_none("--step-for", step_for),
        "only": [node_name(each) for each in only or []],
        "stop_the_world": stop_the_world,
        "yes_really": yes_really,
    }
    made = make_plan(Client(config), asked)
    if as_json:
        print_json(made.model_dump(mode="json"))
    else:
        for line in describe_plan(made):
            sys.stdout.write(f"{line}\n")
    if made.refusals:
        raise typer.Exit(1)


def make_plan(client: Client, asked: dict[str, Any]) -> Plan:
    body = {key: value for key, value in asked.items() if value is not None}
    return Plan.from_value(client.post("/v1/plans", body))


def _steps(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [each.strip().removesuffix("%") for each in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) <= 3 for word in words):
        raise UsageError(
            f"--steps: {text!r} is no list of percents", remedy="such as 1,5,25,50,100"
        )
    return [int(word) for word in words]


@app.command()
def start(
    plan_hash: Annotated[
        str, typer.Argument(metavar="PLAN", help="The hash that `rollcall rollout plan` has shown.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Begin the very rollout that was planned. Refused where it would not be the same any more."""
    if not 12 <= len(plan_hash) <= 64 or not set(plan_hash) <= set("0123456789abcdef"):
        raise UsageError(
            f"{plan_hash!r} is no plan's hash",
            remedy="at least the first 12 characters of it: rollcall rollout plan RELEASE shows them",
        )
    client = Client(config)
    begun = Rollout.from_value(client.post("/v1/rollouts", {"plan": plan_hash}))
    show(find(client, begun.id), as_json=as_json)


@app.command()
def status(
    rollout: RolloutArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """A rollout, with what every node waits for, for whom, and since when."""
    show(find(Client(config), rollout), as_json=as_json)


def show(rollout: Rollout, *, as_json: bool) -> None:
    if as_json:
        print_json(rollout.model_dump(mode="json"))
        return
    now = time.time()
    for line in headline(rollout, now):
        say(line)
    print_table(COLUMNS, [row(node, rollout, now) for node in rollout.nodes], empty="no nodes")


def find(client: Client, rollout: str | None) -> Rollout:
    """The one that is named, else the newest. Raises NotFoundError."""
    if rollout is not None:
        return Rollout.from_value(client.get(f"/v1/rollouts/{rollout_id(rollout)}"))
    found = client.get("/v1/rollouts")["rollouts"]
    if not found:
        raise NotFoundError(
            "there was no rollout yet", remedy="plan one: rollcall rollout plan RELEASE"
        )
    return Rollout.from_value(found[0])


@app.command()
def watch(
    rollout: RolloutArgument = None,
    timeout: Annotated[str, typer.Option(help="Give up after so long: 30s, 2h; 0 is never.")] = "0",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Follow a rollout to its end, a line for every change. Goes on when the coordinator is away and comes back.

    Exit code 0 succeeded, 4 halted or aborted, 5 timed out. With --json the lines are on stderr, and the rollout
    as one document on stdout when it has ended.
    """
    patience, client = seconds("--timeout", timeout), Client(config)
    found = find(client, rollout)
    again = f"rollout {found.id} goes on; follow it: rollcall rollout watch {found.id}"
    screen = Screen(sys.stderr if as_json else sys.stdout, sys.stderr)
    with left_alone(again):
        ended = run_async(Watch(client, found.id, screen, SystemClock()).run(patience or None))
    if as_json:
        print_json(ended.model_dump(mode="json"))
    if not is_over(ended):
        say(again)
        raise typer.Exit(EXIT_TIMED_OUT)
    if ended.state is not RolloutState.SUCCEEDED:
        raise typer.Exit(EXIT_HALTED)


@app.command()
def history(
    rollout: RolloutArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """The latest rollouts; or, of one that is named, every change of state with who and why."""
    client = Client(config)
    if rollout is None:
        answer = client.get("/v1/rollouts")
        if as_json:
            print_json(answer)
            return
        found = [Rollout.from_value(each) for each in answer["rollouts"]]
        rows = [
            [
                each.id,
                moment(each.created),
                each.kind,
                each.label,
                each.strategy,
                each.state,
                span((each.ended or time.time()) - each.created),
                each.set_by,
            ]
            for each in found
        ]
        columns = ["ROLLOUT", "BEGAN", "KIND", "RELEASE", "STRATEGY", "STATE", "TOOK", "BY"]
        print_table(columns, rows, empty="there was no rollout yet")
        return
    answer = client.get(f"/v1/rollouts/{rollout_id(rollout)}/history")
    if as_json:
        print_json(answer)
        return
    rows = [
        [moment(each["at"]), each["node"] or "-", each["state"], each["who"] or "-", each["reason"]]
        for each in answer["history"]
    ]
    print_table(["AT", "NODE", "STATE", "BY", "REASON"], rows, empty="nothing has happened yet")


@app.command()
def export(
    rollout: RolloutArgument = None,
    out: Annotated[Path | None, typer.Option(help="A file; standard output without.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Everything that is kept of a rollout, as one JSON document: the plan, the rollout, every change.

    With --out it goes into that file, and --json says what was written.
    """
    client = Client(config)
    found = find(client, rollout)
    value: dict[str, Any] = {"rollout": found.model_dump(mode="json")}
    value |= client.get(f"/v1/rollouts/{found.id}/history")
    if found.plan is not None:
        value["plan"] = client.get(f"/v1/rollouts/{found.id}/plan")
    if out is None:
        print_json(value)
        return
    raw = canonical_json({"schemaVersion": 1, **value}) + b"\n"
    write_durable(out, raw, mode=0o644)
    if as_json:
        print_json({"file": str(out), "bytes": len(raw), "sha256": sha256_hex(raw)})
    else:
        say(f"{out} is written")
