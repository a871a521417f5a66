"""`rollcall node …`"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from coordinator.cli import nodework
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import node_name, seconds
from coordinator.cli.nodetext import (
    COLUMNS,
    UPGRADE_COLUMNS,
    Sort,
    Wanted,
    describe,
    labels_text,
    read_label,
    row,
    sort_nodes,
    upgrade_row,
)
from shared.errors import UsageError
from shared.nodes import AttributesChange, NodeStatus, NodeUpgrade
from shared.rollout import NodeView
from shared.roster import NodeClass, Role
from shared.terminal import confirm, print_json, print_table, say

app = typer.Typer(help="The nodes of the fleet.", no_args_is_help=True)
tokens = typer.Typer(help="Tokens that let a node join.", no_args_is_help=True)
app.add_typer(tokens, name="token")
nodework.add_to(app)


LabelsOption = Annotated[
    list[str] | None, typer.Option("--label", help="A label as key or key=value; all must fit.")
]
NameArgument = Annotated[str, typer.Argument(help="The node.")]


@app.command("list")
def list_nodes(
    status: Annotated[NodeStatus | None, typer.Option(help="Only those.")] = None,
    class_: Annotated[NodeClass | None, typer.Option("--class", help="Only those.")] = None,
    role: Annotated[Role | None, typer.Option(help="Only those.")] = None,
    site: Annotated[str | None, typer.Option(help="Only those that stand there.")] = None,
    label: LabelsOption = None,
    sort: Annotated[Sort, typer.Option(help="Lowest first; by status what is worst.")] = Sort.NAME,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Every node: what it runs, whether it is ready, what it waits for."""
    answer = Client(config).get("/v1/nodes")
    by_name = {each["name"]: each for each in answer["nodes"]}
    wanted = Wanted(status, class_, role, site, label or ())
    nodes = [NodeView.from_value(each) for each in by_name.values()]
    found = sort_nodes([node for node in nodes if wanted.fits(node)], sort)
    if as_json:
        print_json({"nodes": [by_name[node.name] for node in found]})
        return
    none = "no node has joined; make a token with: rollcall node token create"
    empty = "no node is like that" if nodes else none
    print_table(COLUMNS, [row(node) for node in found], empty=empty)


@app.command()
def show(
    name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """One node: what it last said of itself, its last ten upgrades, and the last hour of what it measures."""
    answer = Client(config).get(f"/v1/nodes/{node_name(name)}")
    if as_json:
        print_json({**answer["node"], "upgrades": answer["upgrades"]})
        return
    upgrades = [NodeUpgrade.from_value(each) for each in answer["upgrades"]]
    for line in describe(NodeView.from_value(answer["node"]), upgrades):
        sys.stdout.write(f"{line}\n")


@app.command("history")
def show_history(
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 1000,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Every upgrade that a node has ended, newest first: from what to what, how it went, and who asked for it."""
    answer = Client(config).get(f"/v1/nodes/{node_name(name)}/upgrades?limit={limit}")
    if as_json:
        print_json(answer)
        return
    rows = [upgrade_row(NodeUpgrade.from_value(each)) for each in answer["upgrades"]]
    print_table(UPGRADE_COLUMNS, rows, empty=f"{name} has ended no upgrade")


@app.command("set")
def set_node(
    name: NameArgument,
    class_: Annotated[
        NodeClass | None, typer.Option("--class", help="Orders a rollout: which part it is.")
    ] = None,
    role: Annotated[Role | None, typer.Option(help="canary goes first, witness last.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it stands: a-z, 0-9 and hyphens.")] = None,
    provider: Annotated[str | None, typer.Option(help="Whose machine it is.")] = None,
    region: Annotated[str | None, typer.Option(help="The provider's region.")] = None,
    address: Annotated[str | None, typer.Option(help="Where people reach it.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="key=value; may be repeated.")
    ] = None,
    remove_label: Annotated[
        list[str] | None, typer.Option("--remove-label", help="A label's key; may be repeated.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say of a node what it is. What is not named stays as it is; an empty text takes it off.

    A role counts for rollouts at once, and for the release's overlays from the agent's next start on.
    """
    labels: dict[str, str | None] = dict.fromkeys(remove_label or ())
    labels |= dict(read_label(each) for each in label or ())
    asked = {
        "class_": class_,
        "role": role,
        "site": site,
        "provider": provider,
        "region": region,
        "address": address,
    }
    body = {key: value for key, value in asked.items() if value is not None}
    if not body and not labels:
        raise UsageError("nothing to set", remedy="name at least one option, such as --class")
    path = f"/v1/nodes/{node_name(name)}/attributes"
    answer = Client(config).put(path, {**body, "labels": labels, "dry_run": dry_run})
    if as_json:
        print_json(answer)
        return
    for line in _changes(AttributesChange.from_value(answer), dry_run=dry_run):
        say(line)


def _changes(change: AttributesChange, *, dry_run: bool) -> list[str]:
    if not change.changed:
        return [f"{change.name} is like that already"]
    before, after = (
        {**each.model_dump(mode="json"), "labels": labels_text(each.labels)}
        for each in (change.before, change.after)
    )
    would = "would change" if dry_run else "changed"
    return [
        f"{change.name}: {field.rstrip('_')} {would} from {before[field] or '-'} to {after[field] or '-'}"
        for field in change.changed
    ]


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The node to lock out.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    wait: Annotated[
        str, typer.Option(help="How long to wait until every other node has heard: 10s, 1m.")
    ] = "10s",
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it; lock nobody out.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lock a node out of mesh and API for good; peers tell each other, also with the coordinator off.

    It comes back only with a new token: rollcall node token create --rejoin NAME
    """
    wait_s, named = seconds("--wait", wait), node_name(name)
    client = Client(config)
    if dry_run:
        _show_revocation(client, named, as_json=as_json)
        return
    if not yes:
        confirm(f"lock {name} out of the fleet?")
    answer = client.post(f"/v1/nodes/{named}/revoke", {"reason": reason})
    behind = _wait_for_roster(client, int(answer["epoch"]), wait_s)
    if as_json:
        print_json({**answer, "not_heard": behind})
        return
    say(f"{name} was revoked already" if answer["again"] else f"{name} is revoked")
    if behind:
        say(f"  not heard yet: {', '.join(behind)}; peers tell them when they come back")
    else:
        say("  every other node knows")


def _show_revocation(client: Client, name: str, *, as_json: bool) -> None:
    node = NodeView.from_value(client.get(f"/v1/nodes/{name}")["node"])
    if as_json:
        print_json({"node": name, "dry_run": True, "pending": node.pending is not None})
        return
    say(f"would lock out {name}: {node.role}, {node.class_}, {node.node_status}, {node.status}")
    if node.pending is not None:
        say(f"  it is to move to {node.pending.label}; its rollout counts it as failed")


def _wait_for_roster(client: Client, epoch: int, wait_s: float) -> list[str]:
    """The nodes that do not have this roster yet when the time is over."""
    ends = time.monotonic() + wait_s
    while True:
        nodes = [NodeView.from_value(each) for each in client.get("/v1/nodes")["nodes"]]
        behind = [node.name for node in nodes if node.roster_epoch < epoch]
        if not behind or time.monotonic() >= ends:
            return behind
        time.sleep(0.3)


@tokens.callback()
def group() -> None:
    """Tokens that let a node join."""


@tokens.command("create")
def create_token(
    ttl: Annotated[str, typer.Option(help="How long it is good for: 45s, 5m, 2h, 1d.")] = "1h",
    name: Annotated[str | None, typer.Option(help="Only for a node of this name.")] = None,
    role: Annotated[Role | None, typer.Option(help="The role that its node gets.")] = None,
    site: Annotated[str | None, typer.Option(help="Where its node stands.")] = None,
    rejoin: Annotated[
        str | None,
        typer.Option(help="For a node that was installed anew: its name stays, its keys change."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make a token for one node; it carries the hashes of root and authority, and is used up by the
    first join."""
    asked = {
        "ttl_s": seconds("--ttl", ttl),
        "name": rejoin or name,
        "role": role,
        "site": site,
        "rejoin": rejoin is not None,
    }
    answer = Client(config).post("/v1/node-tokens", asked)
    if as_json:
        print_json(answer)
    else:
        sys.stdout.write(f"{answer['token']}\n")
