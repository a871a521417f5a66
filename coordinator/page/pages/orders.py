"""`/orders`: work for single nodes, what came back, and the sweep for what is late."""

from __future__ import annotations

from coordinator.api.inside import read_answer
from coordinator.page.deeds import REASON, Answer, Deed, Field, Told
from coordinator.page.pages.fleet import LOOK_MS
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.errors import BadInputError
from shared.orders import (
    OPEN,
    CancelRequest,
    LogBundle,
    OrderDetail,
    OrderKind,
    OrderList,
    OrderState,
    SweepReport,
    SweepRequest,
)
from shared.wire import NODE_NAME, Wire, is_node_name

MENU = "/orders"


class OrderPages(Group):
    async def listing(self, visit: Visit) -> Drawn:
        node, state = visit.asked("node"), visit.asked("state")
        query = {"limit": "100"}
        query |= {"node": node} if is_node_name(node) else {}
        query |= {"state": state} if state in ("open", *OrderState) else {}
        found = await visit.read(OrderList, "GET /v1/orders", query=query)
        values = {
            "orders": found.orders,
            "more": found.more,
            "node": query.get("node", ""),
            "state": query.get("state", ""),
            "states": ["open", *map(str, OrderState)],
            "pattern": NODE_NAME,
            "every_ms": LOOK_MS,
        }
        return Drawn("orders.html", "Orders", values, active=MENU)

    async def show(self, visit: Visit) -> Drawn:
        detail = await visit.read(OrderDetail, "GET /v1/orders/{id}", visit.path)
        values = {
            "detail": detail,
            "order": detail.order,
            "open": detail.order.state in OPEN,
            "logs": logs_of(detail),
            "every_ms": LOOK_MS,
        }
        return Drawn("order.html", f"Order {detail.order.id}", values, active=MENU)

    routes = (PageRoute("GET", "/orders", listing), PageRoute("GET", "/orders/{id}", show))


def logs_of(detail: OrderDetail) -> LogBundle | None:
    """Those that a node has sent, the errors that are new first; None for another kind of order."""
    if detail.order.kind is not OrderKind.COLLECT_LOGS or not detail.result:
        return None
    try:
        bundle = LogBundle.from_bytes(detail.result.encode(), max_bytes=1 << 20)
    except BadInputError:
        return None
    forms = sorted(bundle.forms, key=lambda form: (not form.new, -form.last))
    return bundle.model_copy(update={"forms": forms})


class CancelDeed(Deed):
    active = MENU
    path = "/orders/{id}/cancel"
    action = "POST /v1/orders/{id}/cancel"

    async def tell(self, visit: Visit) -> Told:
        order = (await visit.read(OrderDetail, "GET /v1/orders/{id}", visit.path)).order
        lines = [
            f"The order to {str(order.kind).replace('_', ' ')} on {order.node} is taken back.",
            "A node that is past its point of return finishes it all the same.",
        ]
        return Told(
            "Cancel the order", lines, "Cancel the order", f"/orders/{order.id}", (REASON,), True
        )

    def body(self, visit: Visit) -> Wire:
        return CancelRequest.from_value({"reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(f"/orders/{visit.path['id']}", "Cancelled.")


class SweepDeed(Deed):
    """The sweep that the coordinator makes every few minutes, by hand; its report is shown."""

    active = MENU
    path = "/sla-sweep"
    action = "POST /v1/sla/sweeps"

    async def tell(self, visit: Visit) -> Told:
        return Told(
            title="Look for orders that are late",
            lines=[
                "Every open order is looked at: claimed in time, heard of since, done by its promise.",
                "A dry run changes nothing. Otherwise breaches are noted, and who is to know gets one message each.",
            ],
            button="Look",
            back=MENU,
            fields=(
                Field("dry_run", "Dry run: only show what is late", "checkbox", "yes"),
                Field("record_only", "Note it, and send nobody a message", "checkbox"),
            ),
        )

    def body(self, visit: Visit) -> Wire:
        record = True if visit.ticked("record_only") else None
        return SweepRequest(dry_run=visit.ticked("dry_run"), record_only=record)

    def after(self, visit: Visit, answer: Answer) -> Drawn | Goes:
        report = read_answer(SweepReport, answer)
        return Drawn("sweep.html", "Orders that are late", {"report": report}, active=MENU)


DEEDS: tuple[Deed, ...] = (CancelDeed(), SweepDeed())
