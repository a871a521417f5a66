"""`rollcall node restart|logs`: the orders that operators give most, in a word."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import node_name, request, seconds
from coordinator.cli.order import WaitOption, await_end, end, place, run_order
from coordinator.saying import moment
from shared.errors import UnavailableError
from shared.orders import (
    LogBundle,
    OrderKind,
    OrderRequest,
    OrderState,
    OrderTerms,
)
from shared.terminal import print_json, say

LOGS_EXPIRE_S = 3600.0


def add_to(app: typer.Typer) -> None:
    app.command()(restart)
    app.command()(logs)


def restart(
    name: Annotated[str, typer.Argument(help="The node.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the order.")] = "",
    drain: Annotated[bool, typer.Option(help="Let the work in hand finish first.")] = True,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Do not wait for nodes that are out of service.")
    ] = False,
    wait: WaitOption = "10m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; order nothing.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Restart a node's gateway: out of traffic, stopped, started, ready, and back in."""
    asked = request(
        OrderRequest,
        kind=OrderKind.RESTART,
        node=node_name(name),
        terms=request(OrderTerms, drain=drain, urgent=urgent, reason=reason),
        dry_run=dry_run,
    )
    run_order(Client(config), asked, seconds("--wait", wait), as_json=as_json)


def logs(
    name: Annotated[str, typer.Argument(help="The node.")],
    wait: Annotated[str, typer.Option(help="How long to wait for them: 30s, 2m.")] = "2m",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """The end of a node's gateway logs, without secrets, and the kinds of errors since its release."""
    client, wait_s = Client(config), seconds("--wait", wait)
    asked = OrderRequest(kind=OrderKind.COLLECT_LOGS, node=node_name(name), expires_s=LOGS_EXPIRE_S)
    detail = await_end(client, place(client, asked), wait_s)
    if detail.order.state is not OrderState.COMPLETED:
        end(detail, wait_s)
        raise UnavailableError(
            f"{name} has not collected its logs yet",
            remedy=f"look later: rollcall order show {detail.order.id}",
        )
    bundle = LogBundle.from_bytes(detail.result.encode())
    if as_json:
        print_json(bundle.model_dump(mode="json"))
    else:
        _print(bundle)


def _print(bundle: LogBundle) -> None:
    for form in bundle.forms:
        mark = "new " if form.new else ""
        at = moment(form.last)
        sys.stdout.write(f"{mark}error, {form.count} times, last {at}: {form.example}\n")
    for file in bundle.files:
        sys.stdout.write(f"== {file.path}{f': {file.why}' if file.why else ''}\n")
        sys.stdout.writelines(f"{line}\n" for line in file.lines)
    if bundle.left_out:
        say(f"{bundle.left_out} older lines did not fit")
