"""Where orders come from: the table of orders, and the rollouts, whose upgrades are orders too. Seen as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.fleet import FleetState
from coordinator.orders.book import check_assignee
from coordinator.rollout.engine import Engine
from coordinator.store.orders import OrderQueries, Wanted
from coordinator.store.queries import Queries
from shared.errors import NotFoundError
from shared.orders import (
    CompleteRequest,
    OrderDetail,
    OrderEvent,
    OrderKind,
    OrderList,
    OrderState,
    OrderTerms,
    OrderView,
    UpdateRequest,
)
from shared.rollout import NodeState, NodeView, Rollout, RolloutNode
from shared.wire import short

RECENT_ROLLOUTS = 20


class OrderSource(Protocol):
    """`key` is the sender's Idempotency-Key: the same change under it changes nothing more. Raises
    NotFoundError, NotAssigneeError, and ConflictError for what cannot be done with the order as it is."""

    async def listed(self, wanted: Wanted) -> list[OrderView]: ...
    async def find(self, order_id: str) -> OrderDetail | None: ...
    async def claim(self, order_id: str, node: str, eta_s: float, key: str | None) -> OrderView: ...
    async def update(
        self, order_id: str, node: str, asked: UpdateRequest, key: str | None
    ) -> OrderView: ...
    async def complete(
        self, order_id: str, node: str, asked: CompleteRequest, key: str | None
    ) -> OrderView: ...
    async def cancel(self, order_id: str, who: str, reason: str, key: str | None) -> OrderView: ...


_STATES = {
    NodeState.PENDING: OrderState.PENDING,
    NodeState.MOVING: OrderState.IN_PROGRESS,
    NodeState.DONE: OrderState.COMPLETED,
    NodeState.ROLLED_BACK: OrderState.FAILED,
    NodeState.FAILED: OrderState.FAILED,
    NodeState.SKIPPED: OrderState.CANCELLED,
}
"""A node that waits for its wave has no order yet."""
_ENDED = frozenset({OrderState.COMPLETED, OrderState.FAILED, OrderState.CANCELLED})


class RolloutOrders:
    """The upgrades of the latest rollouts. How far one is comes by sync, with the node's report."""

    def __init__(self, queries: Queries, engine: Engine, fleet: FleetState) -> None:
        self._queries, self._engine, self._fleet = queries, engine, fleet

    async def listed(self, wanted: Wanted) -> list[OrderView]:
        views = (await self._fleet.fleet()).nodes
        found = [
            order
            for rollout, _ in await self._queries.recent_rollouts(RECENT_ROLLOUTS)
            for node in rollout.nodes
            if (order := _view(rollout, node, views.get(node.name))) is not None
        ]
        fitting = [order for order in found if wanted.fits(order)]
        return sorted(fitting, key=lambda each: each.created, reverse=not wanted.oldest)

    async def find(self, order_id: str) -> OrderDetail | None:
        newest = await self._engine.last()
        ours = newest is not None and any(node.order == order_id for node in newest[0].nodes)
        found = [newest] if newest is not None and ours else None
        for rollout, _ in found or await self._queries.recent_rollouts(RECENT_ROLLOUTS):
            node = next((node for node in rollout.nodes if node.order == order_id), None)
            if node is None:
                continue
            views = (await self._fleet.fleet()).nodes
            order = _view(rollout, node, views.get(node.name))
            history = await self._queries.history_of(rollout.id)
            mine = [each for each in history if each["node"] == node.name]
            if order is not None:
                return OrderDetail(order=order, events=[_event(each, rollout) for each in mine])
        return None

    async def claim(self, order_id: str, node: str, eta_s: float, key: str | None) -> OrderView:
        """May be said again by a node that was cut short before it began."""
        await self._mine(order_id, node)
        await self._engine.claim(order_id, node, eta_s, await self._answer(order_id))
        return await self._mine(order_id, node)

    async def update(
        self, order_id: str, node: str, asked: UpdateRequest, key: str | None
    ) -> OrderView:
        return await self._mine(order_id, node)

    async def complete(
        self, order_id: str, node: str, asked: CompleteRequest, key: str | None
    ) -> OrderView:
        return await self._mine(order_id, node)

    async def cancel(self, order_id: str, who: str, reason: str, key: str | None) -> OrderView:
        """Its node drops it before its outage, or goes back. Until it has said so the order is open."""
        said = f"cancelled by {who}" + (f": {reason}" if reason else "")
        await self._engine.withdraw(order_id, said, who, await self._answer(order_id))
        found = await self.find(order_id)
        if found is None:
            raise NotFoundError(f"no order {order_id}", remedy="see: rollcall order list")
        return found.order

    async def _answer(self, order_id: str) -> Callable[[Rollout], OrderView]:
        """The order in a rollout that is about to be written."""
        views = (await self._fleet.fleet()).nodes

        def answer(rollout: Rollout) -> OrderView:
            node = next(node for node in rollout.nodes if node.order == order_id)
            order = _view(rollout, node, views.get(node.name))
            if order is None:
                raise NotFoundError(f"no order {order_id}", remedy="see: rollcall order list")
            return order

        return answer

    async def _mine(self, order_id: str, node: str) -> OrderView:
        found = await self.find(order_id)
        if found is None:
            raise NotFoundError(f"no order {order_id}", remedy="see: rollcall order list")
        check_assignee(found.order, node)
        return found.order


class Orders:
    """All sources as one, with what the sweeps have noted."""

    def __init__(self, sources: Sequence[OrderSource], queries: OrderQueries) -> None:
        self._sources, self._queries = sources, queries

    async def listed(self, wanted: Wanted) -> OrderList:
        found = [order for source in self._sources for order in await source.listed(wanted)]
        found.sort(key=lambda each: (each.created, each.id), reverse=not wanted.oldest)
        shown = found[: wanted.limit]
        noted = await self._queries.breaches(order.id for order in shown)
        return OrderList(
            orders=[
                order.model_copy(update={"breaches": noted.get(order.id, [])}) for order in shown
            ],
            more=len(found) > len(shown),
        )

    async def find(self, order_id: str) -> OrderDetail:
        """Raises NotFoundError."""
        _, detail = await self._look(order_id)
        noted = await self._queries.breaches([order_id])
        order = detail.order.model_copy(update={"breaches": noted.get(order_id, [])})
        return detail.model_copy(update={"order": order})

    async def source_of(self, order_id: str) -> OrderSource:
        """Raises NotFoundError."""
        source, _ = await self._look(order_id)
        return source

    async def _look(self, order_id: str) -> tuple[OrderSource, OrderDetail]:
        for source in self._sources:
            detail = await source.find(order_id)
            if detail is not None:
                return source, detail
        raise NotFoundError(f"no order {order_id}", remedy="see: rollcall order list")


def _view(rollout: Rollout, node: RolloutNode, view: NodeView | None) -> OrderView | None:
    """None while the node has no order: its wave has not come, or it was left out before."""
    state = _STATES.get(node.state)
    if state is None or (node.state is NodeState.SKIPPED and node.flagged is None):
        return None
    if state is OrderState.IN_PROGRESS and not node.phase:
        state = OrderState.CLAIMED
    report = None if view is None or view.upgrade is None else view.upgrade
    began = report.began if report is not None and report.order == node.order else None
    rolled = "rolled back: " if node.state is NodeState.ROLLED_BACK else ""
    taken = f"taken back, {node.withdrawn}: " if node.withdrawn and state not in _ENDED else ""
    return OrderView(
        id=node.order,
        node=node.name,
        kind=OrderKind.UPGRADE,
        state=state,
        terms=OrderTerms(subject=node.release or rollout.release, label=rollout.label),
        reason=short(f"{rolled}{taken}{node.reason}"),
        created=node.flagged or node.since,
        created_by=rollout.set_by,
        since=node.since,
        claimed=node.claimed or began,
        eta=node.eta,
        updated=None if view is None else view.heard,
        ended=node.since if state in _ENDED else None,
    )


def _event(entry: dict[str, object], rollout: Rollout) -> OrderEvent:
    state = NodeState(str(entry["state"]))
    at = entry["at"]
    return OrderEvent(
        at=float(at) if isinstance(at, int | float) else 0.0,
        who=f"rollout {rollout.id}",
        event=state.value,
        state=_STATES.get(state, OrderState.PENDING),
        reason=str(entry["reason"]),
    )
