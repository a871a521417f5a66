"""`/v1/orders`, `/v1/sla/sweeps`: work for single nodes, from the request to its result."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Number, Resource, Route, Word
from coordinator.orders.book import OrderBook
from coordinator.orders.sources import Orders
from coordinator.orders.sweep import Sweeper
from coordinator.store.orders import Wanted
from shared.errors import BadInputError
from shared.http import wire_response
from shared.orders import (
    ASKED,
    CancelRequest,
    ClaimRequest,
    CompleteRequest,
    OrderDetail,
    OrderKind,
    OrderList,
    OrderRequest,
    OrderState,
    OrderView,
    SweepReport,
    SweepRequest,
    UpdateRequest,
)
from shared.wire import NODE_NAME

ID = rf"[0-9a-f]{{8}}:{NODE_NAME}"
OPEN_WORD = "open"
_STATES = "|".join([OPEN_WORD, *OrderState])
_KINDS = "|".join(OrderKind)


def _tag(order: OrderView) -> str:
    return f"{order.state}.{order.revision}"


def _made(call: Call, order: OrderView) -> None:
    call.subject, call.detail = f"order {order.id}", f"{order.kind} {order.node}"


def _claimed(call: Call, order: OrderView) -> None:
    call.detail = f"{order.kind}, done in {call.wire(ClaimRequest).eta_s:.0f} s"


def _ended(call: Call, order: OrderView) -> None:
    call.detail = f"{order.kind} {order.state}: {order.reason}"


def _swept(call: Call, report: SweepReport) -> None:
    call.detail = (
        f"{'dry run: ' if report.dry_run else ''}scanned={report.scanned} "
        f"breaches={report.breaches} messages={report.messages}"
    )


class OrdersApi(Resource):
    def __init__(self, orders: Orders, book: OrderBook, sweeper: Sweeper) -> None:
        self._orders, self._book, self._sweeper = orders, book, sweeper

    async def listing(self, call: Call) -> OrderList:
        node, kind, state = (call.words[name] for name in ("node", "kind", "state"))
        wanted = Wanted(
            node=node,
            kind=None if kind is None else OrderKind(kind),
            state=None if state in (None, OPEN_WORD) else OrderState(state),
            open_only=state == OPEN_WORD,
            limit=call.query["limit"] + 1,
        )
        found = await self._orders.listed(wanted)
        limit = call.query["limit"]
        return OrderList(orders=found.orders[:limit], more=len(found.orders) > limit)

    async def show(self, call: Call) -> OrderDetail:
        return await self._orders.find(call.parameters["id"])

    async def create(self, call: Call) -> web.Response:
        asked = call.wire(OrderRequest)
        if asked.kind not in ASKED:
            how = "begin a rollout" if asked.kind is OrderKind.UPGRADE else "publish the capability"
            raise BadInputError(f"an order to {asked.kind} is not made by hand", remedy=how)
        made = await self._book.create(asked, call.caller.who, call.key)
        _made(call, made)
        if asked.dry_run:
            call.detail = f"plan only: {call.detail}"
        return wire_response(made, status=200 if asked.dry_run else 201)

    async def cancel(self, call: Call) -> OrderView:
        order_id, asked = call.parameters["id"], call.wire(CancelRequest)
        source = await self._orders.source_of(order_id)
        return await source.cancel(order_id, call.caller.who, asked.reason, call.key)

    async def claim(self, call: Call) -> OrderView:
        order_id, asked = call.parameters["id"], call.wire(ClaimRequest)
        source = await self._orders.source_of(order_id)
        order = await source.claim(order_id, call.caller.who, asked.eta_s, call.key)
        _claimed(call, order)
        return order

    async def update(self, call: Call) -> OrderView:
        order_id, asked = call.parameters["id"], call.wire(UpdateRequest)
        source = await self._orders.source_of(order_id)
        return await source.update(order_id, call.caller.who, asked, call.key)

    async def complete(self, call: Call) -> OrderView:
        order_id, asked = call.parameters["id"], call.wire(CompleteRequest)
        source = await self._orders.source_of(order_id)
        order = await source.complete(order_id, call.caller.who, asked, call.key)
        _ended(call, order)
        return order

    async def sweep(self, call: Call) -> SweepReport:
        report = await self._sweeper.sweep(call.wire(SweepRequest))
        _swept(call, report)
        return report

    async def version(self, call: Call) -> str | None:
        """State and revision: an upgrade's is counted by its rollout."""
        return _tag((await self._orders.find(call.parameters["id"])).order)

    routes = (
        Route(
            "GET",
            "/v1/orders",
            listing,
            Allows.VIEWER,
            "Orders, the newest first, upgrades of the latest rollouts among them.",
            answer=OrderList,
            query=(
                Number("limit", 100, 1000, "At most so many.", lowest=1),
                Word("node", NODE_NAME, "Of this node only."),
                Word("kind", f"({_KINDS})", "Of this kind only."),
                Word(
                    "state", f"({_STATES})", "In this state only; open is each that has not ended."
                ),
            ),
        ),
        Route(
            "POST",
            "/v1/orders",
            create,
            Allows.OPERATOR,
            "Order a node to restart its gateway, to roll back, or to collect its logs.",
            body=OrderRequest,
            answer=OrderView,
            success=(201, 200),
            refusals=(404, 409),
            about=_made,
        ),
        Route(
            "GET",
            "/v1/orders/{id}",
            show,
            Allows.VIEWER,
            "One order, with everything that happened to it and its result.",
            parameters={"id": ID},
            answer=OrderDetail,
            refusals=(404,),
            etag=version,
        ),
        Route(
            "POST",
            "/v1/orders/{id}/cancel",
            cancel,
            Allows.OPERATOR,
            "Take an order back. A node that is past its point of return finishes it all the same.",
            parameters={"id": ID},
            body=CancelRequest,
            answer=OrderView,
            refusals=(404, 409),
            etag=version,
            tag=_tag,
        ),
        Route(
            "POST",
            "/v1/orders/{id}/claim",
            claim,
            Allows.NODE,
            "Take an order up, with the time it will take. Only the node that it is for may.",
            parameters={"id": ID},
            body=ClaimRequest,
            answer=OrderView,
            refusals=(404, 409),
            about=_claimed,
        ),
        Route(
            "POST",
            "/v1/orders/{id}/update",
            update,
            Allows.NODE,
            "Say how far a claimed order is.",
            parameters={"id": ID},
            body=UpdateRequest,
            answer=OrderView,
            refusals=(404, 409),
            recorded=False,
        ),
        Route(
            "POST",
            "/v1/orders/{id}/complete",
            complete,
            Allows.NODE,
            "End a claimed order, with its result or with why it failed.",
            parameters={"id": ID},
            body=CompleteRequest,
            answer=OrderView,
            refusals=(404, 409),
            about=_ended,
        ),
        Route(
            "POST",
            "/v1/sla/sweeps",
            sweep,
            Allows.OPERATOR,
            "Look for orders that are late; note them, and tell who is to know.",
            body=SweepRequest,
            answer=SweepReport,
            about=_swept,
        ),
    )
