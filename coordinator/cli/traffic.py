"""`rollcall traffic …`: what share of traffic each node takes, and should take."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.saying import moment
from shared.errors import UsageError
from shared.terminal import print_json, print_table, say
from shared.traffic import NodeTraffic, Restored, Snapshot, TrafficHistory, TrafficView

app = typer.Typer(help="Shares of traffic: see, set, freeze, keep, restore.", no_args_is_help=True)

ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history and the audit log.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


@app.command()
def show(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every node: the share wanted and taken, what load balancers are told, since when and why, what it waits for.

    TOLD is 0 while the build of a worker is drained; its share is kept.
    """
    answer = Client(config).get("/v1/traffic")
    if as_json:
        print_json(answer)
        return
    view = TrafficView.from_value(answer)
    if view.frozen is not None:
        since, by = moment(view.frozen.since), view.frozen.by
        say(f"all ratios are frozen since {since} by {by}: {view.frozen.reason}")
    print_table(
        [
            "NODE",
            "WANTED",
            "TAKES",
            "TOLD",
            "COHORT",
            "STEP",
            "SINCE",
            "BY",
            "ASKED BY",
            "WHY",
            "WAITS FOR",
        ],
        [_row(node) for node in view.nodes],
        empty="no node has joined",
    )


def _row(node: NodeTraffic) -> list[str]:
    return [
        node.node,
        "-" if node.desired is None else f"{node.desired} %",
        "?" if node.actual is None else f"{node.actual} %",
        "?" if node.told is None else f"{node.told} %",
        node.cohort or "-",
        "-" if node.step is None else f"{node.step} of {node.steps}",
        moment(node.since),
        node.by or "-",
        ", ".join(node.asked_by) or "nobody",
        node.reason,
        node.waits,
    ]


@app.command("set")
def set_share(
    node: Annotated[str, typer.Argument(help="Whose share.")],
    percent: Annotated[
        int | None, typer.Argument(min=0, max=100, help="How much; stands until --auto.")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Give the share back to Rollcall.")] = False,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Say which share a node takes. It lowers it at once, and raises it when its peers have seen it green.

    A node that got stuck while it was drained takes traffic again this way.
    """
    if auto == (percent is not None):
        raise UsageError("name a percentage, or --auto, and not both")
    asked = {"percent": percent, "auto": auto, "reason": _needed(reason), "dry_run": dry_run}
    answer = Client(config).post(f"/v1/traffic/nodes/{quote(node, safe='')}", asked)
    if as_json:
        print_json(answer)
        return
    found = NodeTraffic.from_value(answer)
    would = "would be" if dry_run else "is"
    stands = "; it stands until --auto" if found.pinned else "; Rollcall goes on from there"
    say(f"{found.desired} % {would} wanted of {node}, which takes {found.actual} %{stands}")
    if found.waits and not dry_run:
        say(f"  {found.waits}")


@app.command()
def freeze(
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Hold the ratios of all nodes until `unfreeze`. A rollback still puts a node's share back."""
    answer = Client(config).post("/v1/traffic/freeze", {"reason": _needed(reason)})
    if as_json:
        print_json(answer)
    else:
        say("all ratios are frozen; lift it with: rollcall traffic unfreeze --reason ...")


@app.command()
def unfreeze(
    reason: ReasonOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let the ratios change again; each step that goes on is watched anew."""
    answer = Client(config).post("/v1/traffic/unfreeze", {"reason": _needed(reason)})
    if as_json:
        print_json(answer)
    else:
        say(f"lifted what {answer['by']} froze at {moment(answer['since'])}: {answer['reason']}")


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    rollout: Annotated[
        str | None, typer.Option(help="Only what this rollout did; --json has its snapshots too.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Every change of what was wanted of a node, newest first."""
    one = None if rollout is None else quote(rollout, safe="")
    path = f"/v1/traffic/history?limit={limit}" if one is None else f"/v1/traffic/rollouts/{one}"
    answer = Client(config).get(path)
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            moment(each.at),
            each.node or "all",
            "-" if each.percent is None else f"{each.percent} %",
            each.by,
            each.rollout or "-",
            each.reason,
        ]
        for each in TrafficHistory.from_value(answer).history[:limit]
    ]
    print_table(
        ["AT", "NODE", "WANTED", "BY", "ROLLOUT", "WHY"], rows, empty="nothing was ever wanted"
    )


@app.command()
def snapshot(
    name: Annotated[str, typer.Argument(help="Under which name.")],
    reason: Annotated[str, typer.Option(help="What for.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Keep the shares and releases of all nodes. One is taken by itself beside every rollout's bookmarks."""
    asked = {"name": name, "reason": reason}
    answer = Client(config).post("/v1/traffic/snapshots", asked)
    if as_json:
        print_json(answer)
    else:
        say(f"kept {len(answer['nodes'])} nodes; restore with: rollcall traffic restore {name}")


@app.command()
def snapshots(
    name: Annotated[str | None, typer.Argument(help="Show this one, node by node.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """The snapshots, newest first; or one of them."""
    client = Client(config)
    if name is not None:
        _show_snapshot(client.get(f"/v1/traffic/snapshots/{quote(name, safe='')}"), as_json)
        return
    answer = client.get("/v1/traffic/snapshots")
    if as_json:
        print_json(answer)
        return
    found = [Snapshot.from_value(each) for each in answer["snapshots"]]
    rows = [
        [each.name, moment(each.created), each.by, str(len(each.nodes)), each.reason]
        for each in found
    ]
    print_table(["NAME", "TAKEN", "BY", "NODES", "WHY"], rows, empty="no snapshot was taken")


def _show_snapshot(answer: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each.node,
            "-" if each.desired is None else f"{each.desired} %",
            "?" if each.actual is None else f"{each.actual} %",
            "an operator's" if each.pinned else "-",
            (each.release or "-")[:16],
        ]
        for each in Snapshot.from_value(answer).nodes
    ]
    print_table(["NODE", "WANTED", "TOOK", "WORD", "RELEASE"], rows, empty="it has no nodes")


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="Which snapshot.")],
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Want again the shares that were wanted then; what is below 100 % stands until --auto.

    Releases are not moved: a rollback puts release and share back together.
    """
    path = f"/v1/traffic/snapshots/{quote(name, safe='')}/restore"
    answer = Client(config).post(path, {"reason": _needed(reason), "dry_run": dry_run})
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each.node,
            "?" if each.now is None else f"{each.now} %",
            "-" if each.then is None else f"{each.then} %",
            each.note,
        ]
        for each in Restored.from_value(answer).differences
    ]
    then = "WOULD BE" if dry_run else "WANTED"
    print_table(["NODE", "NOW", then, "NOTE"], rows, empty="nothing differs from that snapshot")


def _needed(reason: str) -> str:
    if not reason.strip():
        raise UsageError("this needs --reason", remedy="say why, for whoever looks at it later")
    return reason
