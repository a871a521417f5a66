"""`rollcall node …`"""

from __future__ import annotations

import sys
import time
from typing import Annotated
from urllib.parse import quote

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.durations import parse_duration
from shared.errors import NotFoundError, UsageError
from shared.report import UpgradeReport
from shared.rollout import NodeView
from shared.roster import Role
from shared.sparkline import describe_trends
from shared.terminal import confirm, print_json, print_table, say

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
            node.site or "-",
            node.status,
            node.version_running or "-",
            "never" if node.age_s is None else f"{node.age_s:.0f} s ago",
            _days_left(node),
            node.waiting
            or "; ".join(freeze.words for freeze in node.freezes)
            or node.reason
            or "; ".join(node.alerts),
        ]
        for node in nodes
    ]
    print_table(
        ["NODE", "ROLE", "SITE", "READINESS", "OPENCLAW", "HEARD", "CERT", "NOTE"],
        rows,
        empty="no node has joined; make a token with: rollcall node token create",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The node.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """One node: what it last said of itself, with the last hour of what it measures."""
    answer = Client(config).get("/v1/nodes")
    found = [each for each in answer["nodes"] if each["name"] == name]
    if not found:
        known = ", ".join(each["name"] for each in answer["nodes"]) or "none"
        raise NotFoundError(f"no node is called {name!r}", remedy=f"there are: {known}")
    if as_json:
        print_json(found[0])
        return
    for line in describe(NodeView.from_value(found[0])):
        sys.stdout.write(f"{line}\n")


def describe(node: NodeView) -> list[str]:
    heard = "never heard" if node.age_s is None else f"heard {node.age_s:.0f} s ago"
    lines = [
        f"{node.name} ({node.role}{f', {node.site}' if node.site else ''}):"
        f" OpenClaw {node.version_running or 'not running'}, {node.status}, {heard}"
    ]
    said = {
        "because": node.reason,
        "waits": node.waiting,
        "hash": node.ready_probe_sha256 or "",
        "upgrade": "" if node.upgrade is None else _describe_upgrade(node.upgrade),
        "frozen by": ", ".join(node.frozen_by),
        "cert": _days_left(node),
    }
    lines += [f"  {title:<10}{text}" for title, text in said.items() if text]
    lines += [f"  alert     {alert}" for alert in node.alerts]
    return lines + [f"  {line}" for line in describe_trends(node.trends)]


def _describe_upgrade(upgrade: UpgradeReport) -> str:
    return ", ".join(part for part in (upgrade.phase, upgrade.detail, upgrade.reason) if part)


def _days_left(node: NodeView) -> str:
    """What the node's certificate has left; a full 30 days says that it was just renewed."""
    if node.certificate_expires is None:
        return "-"
    return f"{(node.certificate_expires - time.time()) / 86400:.0f} d"


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The node to lock out.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    wait: Annotated[
        str, typer.Option(help="How long to wait until every other node has heard: 10s, 1m.")
    ] = "10s",
    config: ConfigOption = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lock a node out of mesh and API for good; peers tell each other, also with the coordinator off.

    It comes back only with a new token: rollcall node token create --rejoin NAME
    """
    seconds = _duration("--wait", wait)
    if not yes:
        confirm(f"lock {name} out of the fleet?")
    client = Client(config)
    answer = client.post(f"/v1/nodes/{quote(name, safe='')}/revoke", {"reason": reason})
    behind = _wait_for_roster(client, int(answer["epoch"]), seconds)
    if as_json:
        print_json({**answer, "not_heard": behind})
        return
    say(f"{name} was revoked already" if answer["again"] else f"{name} is revoked")
    if behind:
        say(f"  not heard yet: {', '.join(behind)}; peers tell them when they come back")
    else:
        say("  every other node knows")


def _wait_for_roster(client: Client, epoch: int, seconds: float) -> list[str]:
    """The nodes that do not have this roster yet when the time is over."""
    ends = time.monotonic() + seconds
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
        "ttl_s": _duration("--ttl", ttl),
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


def _duration(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
