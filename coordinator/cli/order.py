"""`rollcall order …`: work for single nodes, upgrades of rollouts among it."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.following import follow
from coordinator.cli.given import node_name, order_id, request, seconds
from coordinator.saying import moment, span
from shared.errors import UsageError
from shared.orders import (
    ASKED,
    OPEN,
    OrderDetail,
    OrderKind,
    OrderList,
    OrderRequest,
    OrderState,
    OrderTerms,
    OrderView,
)
from shared.terminal import EXIT_TIMED_OUT, print_json, print_table, say

POLL_S = 0.5
app = typer.Typer(help="Work for single nodes.", no_args_is_help=True)

WaitOption = Annotated[
    str, typer.Option("--wait", help="How long to wait for its end: 30s, 10m; 0 does not wait.")
]


@app.command("list")
def list_orders(
    node: Annotated[str | None, typer.Option(help="Of this node only.")] = None,
    kind: Annotated[OrderKind | None, typer.Option(help="Of this kind only.")] = None,
    state: Annotated[OrderState | None, typer.Option(help="In this state only.")] = None,
    is_open: Annotated[bool, typer.Option("--open", help="Only what has not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Orders, the newest first: who has which, since when, and what is late."""
    if is_open and state is not None:
        raise UsageError("--open and --state exclude each other")
    wanted = {"node": node, "kind": kind, "state": "open" if is_open else state, "limit": limit}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    answer = Client(config).get(f"/v1/orders?{query}")
    if as_json:
        print_json(answer)
        return
    found, now = OrderList.from_value(answer), time.time()
    rows = [
        [order.id, order.kind, order.state, span(now - order.since), _eta(order, now), _note(order)]
        for order in found.orders
    ]
    print_table(["ORDER", "KIND", "STATE", "SINCE", "ETA", "NOTE"], rows, empty="no order fits")
    if found.more:
        say(f"there are more; the newest {limit} are shown")


@app.command()
def show(
    order: Annotated[str, typer.Argument(help="As `rollcall order list` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """One order: its terms, everything that happened to it, what was late, and its result."""
    answer = Client(config).get(f"/v1/orders/{order_id(order)}")
    if as_json:
        print_json(answer)
        return
    for line in describe(OrderDetail.from_value(answer)):
        sys.stdout.write(f"{line}\n")


@app.command()
def cancel(
    order: Annotated[str, typer.Argument(help="As `rollcall order list` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the order.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take an order back. A node that is past its point of return finishes what it has begun."""
    answer = Client(config).post(f"/v1/orders/{order_id(order)}/cancel", {"reason": reason})
    if as_json:
        print_json(answer)
    elif answer["state"] in OPEN:
        say(f"{order} is taken back: before its outage the node drops it, later it goes back")
    else:
        say(f"{order} is {answer['state']}")


@app.command()
def create(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(ASKED)}.")],
    node: Annotated[str, typer.Argument(help="The node that is to do it.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the order, told to its node.")] = "",
    drain: Annotated[
        bool, typer.Option(help="Before a restart, let the work in hand finish.")
    ] = True,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Do not wait for nodes that are out of service.")
    ] = False,
    expires: Annotated[str, typer.Option(help="How long it may stay open: 10m, 24h.")] = "24h",
    wait: WaitOption = "0",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; order nothing.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Order one node to do something. With --wait, exit code 1 when it failed and 5 when it is not done."""
    if kind not in ASKED:
        raise UsageError(
            f"{kind!r} is not ordered by hand", remedy=f"there are: {', '.join(ASKED)}"
        )
    asked = request(
        OrderRequest,
        kind=kind,
        node=node_name(node),
        terms=request(OrderTerms, drain=drain, urgent=urgent, reason=reason),
        expires_s=seconds("--expires", expires),
        dry_run=dry_run,
    )
    run_order(Client(config), asked, seconds("--wait", wait), as_json=as_json)


def run_order(client: Client, asked: OrderRequest, wait_s: float, *, as_json: bool) -> None:
    """Make it, wait for its end if asked to, and say what came of it. Raises typer.Exit when that is no good."""
    order = place(client, asked)
    if asked.dry_run:
        say(f"would order {order.kind} of {order.node}")
    detail = OrderDetail(order=order) if asked.dry_run else await_end(client, order, wait_s)
    if as_json:
        print_json(detail.model_dump(mode="json"))
    if asked.dry_run:
        return
    if not as_json:
        for line in describe(detail):
            sys.stdout.write(f"{line}\n")
    end(detail, wait_s)


def place(client: Client, asked: OrderRequest) -> OrderView:
    return OrderView.from_value(client.post("/v1/orders", asked.model_dump(mode="json")))


def await_end(client: Client, order: OrderView, wait_s: float) -> OrderDetail:
    """The order once it has ended, or as it is when the time is over; each change is said."""
    said: set[str] = set()

    def look() -> OrderDetail:
        return OrderDetail.from_value(client.get(f"/v1/orders/{order.id}"))

    def is_over(detail: OrderDetail) -> bool:
        now = detail.order
        words = f"{now.id} {now.state} {now.reason}".rstrip()
        if words not in said and wait_s:
            said.add(words)
            say(words)
        return now.state not in OPEN

    again = f"the order stands; see it: rollcall order show {order.id}; take it back: rollcall order cancel {order.id}"
    return follow(look, is_over, wait_s, POLL_S, again)


def end(detail: OrderDetail, wait_s: float) -> None:
    """Raises typer.Exit unless it came to a good end, or nobody waits for one."""
    state = detail.order.state
    if state in OPEN and wait_s:
        raise typer.Exit(EXIT_TIMED_OUT)
    if state not in OPEN and state is not OrderState.COMPLETED:
        raise typer.Exit(1)


def describe(detail: OrderDetail) -> list[str]:
    order, now = detail.order, time.time()
    about = f" {order.terms.label}" if order.terms.label else ""
    lines = [f"{order.id}: {order.kind}{about}, {order.state} for {span(now - order.since)}"]
    said: dict[str, Any] = {
        "by": order.created_by,
        "why": order.terms.reason,
        "eta": _eta(order, now),
        "reason": order.reason,
    }
    lines += [f"  {name:<8} {text}" for name, text in said.items() if text not in ("", "-")]
    for breach in order.breaches:
        told = "nobody was told" if breach.told is None else f"told {moment(breach.told)}"
        lines.append(f"  late     {breach.kind} at {moment(breach.at)}: {breach.reason}; {told}")
    for event in detail.events:
        words = f"  {moment(event.at)} {event.event} -> {event.state} by {event.who} {event.reason}"
        lines.append(words.rstrip())
    if detail.result:
        lines.append(f"  result   {len(detail.result)} characters; see them with --json")
    return lines


def _note(order: OrderView) -> str:
    late = ", ".join(breach.kind for breach in order.breaches)
    return "; ".join(part for part in (order.reason, f"late: {late}" if late else "") if part)


def _eta(order: OrderView, now: float) -> str:
    if order.eta is None or order.state not in OPEN:
        return "-"
    left = order.eta - now
    return f"in {span(left)}" if left >= 0 else f"{span(-left)} ago"
