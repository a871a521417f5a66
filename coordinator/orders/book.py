"""The orders of the coordinator's own table: every kind but upgrades. The only writer of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from coordinator.notifier import Notifier
from coordinator.orders.lifecycle import OrderMove, Step, apply, is_due, why_expired
from coordinator.orders.turns import TAKES_OUT
from coordinator.store.orders import Noted, OrderQueries, Wanted
from shared.canonical import canonical_json, framed_sha256, sha256_hex
from shared.clock import Clock
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.orders import (
    MAX_NOTICES,
    MAX_OPEN,
    OPEN,
    CompleteRequest,
    NodeOrders,
    Notice,
    OpenOrder,
    OrderDetail,
    OrderRequest,
    OrderState,
    OrderView,
    UpdateRequest,
)
from shared.wire import short

ALL_OPEN = 100_000
NOTHING = NodeOrders(tag="")


class NotAssigneeError(UntrustedError):
    """A node that claims, updates or ends another node's order."""

    code = "not-assignee"


def request_id(who: str, key: str | None) -> str | None:
    """What stands for a caller's Idempotency-Key in the tables."""
    return None if key is None else framed_sha256([who.encode(), key.encode()])


def check_assignee(order: OrderView, node: str) -> None:
    if order.node != node:
        raise NotAssigneeError(f"order {order.id} is for {order.node!r}, not for {node!r}")


class OrderBook:
    """An OrderSource over the table. What each node has open, and who has claimed what takes it out, is kept in memory
    too: every sync and every look at a rollout asks for it.
    `live` names the nodes of the roster; `turn` says why a claim has to wait, given who has such an order in
    hand."""

    def __init__(
        self,
        queries: OrderQueries,
        notifier: Notifier,
        clock: Clock,
        live: Callable[[], set[str]],
        turn: Callable[[OrderView, set[str]], Awaitable[str]],
    ) -> None:
        self._queries, self._notifier, self._clock = queries, notifier, clock
        self._live, self._turn = live, turn
        self._claiming = asyncio.Lock()
        self._nodes: dict[str, NodeOrders] = {}
        self._in_hand: set[str] = set()

    async def load(self) -> None:
        """What every node is to be told, read anew."""
        found = await self._queries.listed(Wanted(open_only=True, oldest=True, limit=ALL_OPEN))
        notices = await self._queries.notices(MAX_NOTICES)
        mine: dict[str, list[OpenOrder]] = {}
        for order in found:
            mine.setdefault(order.node, []).append(_as_told(order))
        self._in_hand = {order.node for order in found if _takes_out(order)}
        self._nodes = {
            name: _told(mine.get(name, []), notices.get(name, [])) for name in {*mine, *notices}
        }

    def told(self, node: str) -> NodeOrders:
        """What this node is to be told: its open orders, the oldest first, and what is late."""
        return self._nodes.get(node, NOTHING)

    async def changed(self, node: str) -> None:
        """One node's orders or notices are others: it is told, if it waits for news."""
        wanted = Wanted(node=node, open_only=True, oldest=True, limit=MAX_OPEN)
        found = await self._queries.listed(wanted)
        notices = await self._queries.notices(MAX_NOTICES, node)
        self._nodes[node] = _told([_as_told(order) for order in found], notices.get(node, []))
        if any(_takes_out(order) for order in found):
            self._in_hand.add(node)
        else:
            self._in_hand.discard(node)
        self._notifier.notify([node])

    async def create(self, asked: OrderRequest, who: str, key: str | None = None) -> OrderView:
        """A new order; with a key, the one that the same request has made before. A dry run makes none.

        Raises NotFoundError for a node that is not in the roster, ConflictError when it has too many.
        """
        live = self._live()
        if asked.node not in live:
            known = ", ".join(sorted(live)[:20]) or "none"
            raise NotFoundError(f"no node is called {asked.node!r}", remedy=f"there are: {known}")
        now = self._clock.now()
        order = OrderView(
            id=f"{secrets.token_hex(4)}:{asked.node}",
            node=asked.node,
            kind=asked.kind,
            terms=asked.terms,
            created=now,
            created_by=short(who, 64),
            since=now,
            expires=now + asked.expires_s,
        )
        if asked.dry_run:
            return order
        noted = Noted(who, OrderMove.CREATE, now, asked.terms.reason, request_id(who, key))
        made = await self._queries.add(order, noted)
        await self.changed(made.node)
        return made

    async def listed(self, wanted: Wanted) -> list[OrderView]:
        return await self._queries.listed(wanted)

    async def find(self, order_id: str) -> OrderDetail | None:
        found = await self._queries.find(order_id)
        if found is None:
            return None
        order, result = found
        return OrderDetail(order=order, events=await self._queries.events(order_id), result=result)

    async def claim(self, order_id: str, node: str, eta_s: float, key: str | None) -> OrderView:
        """Of two nodes that must not be out together one gets it. Raises ConflictError with who is out."""
        async with self._claiming:
            found = await self._queries.find(order_id)
            if found is not None and found[0].state is OrderState.PENDING:
                check_assignee(found[0], node)
                if why := await self._turn(found[0], set(self._in_hand)):
                    raise ConflictError(why, remedy="it is claimed later; --urgent does not wait")
            return await self._step(order_id, Step(OrderMove.CLAIM, node, eta_s=eta_s), key)

    @property
    def in_hand(self) -> frozenset[str]:
        """Nodes that have claimed what takes them out."""
        return frozenset(self._in_hand)

    async def update(
        self, order_id: str, node: str, asked: UpdateRequest, key: str | None
    ) -> OrderView:
        step = Step(OrderMove.UPDATE, node, asked.reason, asked.eta_s)
        return await self._step(order_id, step, key)

    async def complete(
        self, order_id: str, node: str, asked: CompleteRequest, key: str | None
    ) -> OrderView:
        move = OrderMove.FAIL if asked.failed else OrderMove.COMPLETE
        return await self._step(order_id, Step(move, node, asked.reason), key, asked.result)

    async def cancel(self, order_id: str, who: str, reason: str, key: str | None) -> OrderView:
        """Its node drops it, if nothing is done that cannot be left; else it ends what it has begun, and its word
        about that is refused."""
        said = f"cancelled by {who}" + (f": {reason}" if reason else "")
        return await self._step(order_id, Step(OrderMove.CANCEL, who, said), key)

    async def expire(self) -> int:
        """End what has stood too long; returns how many that were."""
        now = self._clock.now()
        open_now = await self._queries.listed(Wanted(open_only=True, oldest=True, limit=ALL_OPEN))
        ended = 0
        for order in open_now:
            if is_due(order, now):
                step = Step(OrderMove.EXPIRE, "coordinator", why_expired(order))
                try:
                    await self._step(order.id, step, None)
                    ended += 1
                except ConflictError:
                    continue
        return ended

    async def _step(
        self, order_id: str, step: Step, key: str | None, result: str | None = None
    ) -> OrderView:
        now = self._clock.now()

        def change(order: OrderView) -> OrderView:
            if step.move in (OrderMove.CLAIM, OrderMove.UPDATE, OrderMove.COMPLETE, OrderMove.FAIL):
                check_assignee(order, step.who)
            return apply(order, step, now)

        noted = Noted(step.who, step.move, now, step.reason, request_id(step.who, key), result)
        order = await self._queries.change(order_id, change, noted)
        await self.changed(order.node)
        if order.state not in OPEN:
            for name in self._who_heard_of(order_id):
                await self.changed(name)
        return order

    def _who_heard_of(self, order_id: str) -> list[str]:
        """Nodes whose notices are about this order, which ended them."""
        return [
            name
            for name, told in self._nodes.items()
            if any(notice.order == order_id for notice in told.notices)
        ]


def _takes_out(order: OrderView) -> bool:
    return order.kind in TAKES_OUT and order.state is not OrderState.PENDING


def _as_told(order: OrderView) -> OpenOrder:
    return OpenOrder(id=order.id, kind=order.kind, terms=order.terms, created_by=order.created_by)


def _told(orders: list[OpenOrder], notices: list[Notice]) -> NodeOrders:
    """The tag is of what its node acts on: that an order was claimed is no news to who has claimed it."""
    if not orders and not notices:
        return NodeOrders(tag="")
    named = [[order.id for order in orders], [[each.order, each.kind] for each in notices]]
    tag = sha256_hex(canonical_json(named))[:16]
    return NodeOrders(tag=tag, orders=orders[:MAX_OPEN], notices=notices)
