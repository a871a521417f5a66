"""The life of an order: one table of moves, and a pure function that makes them. Nothing here reads or writes.

A claim is a lease with an ETA. When that passes the order stays its node's, who alone knows how far it is: the
sweep notes it, and the order ends at `expires` at the latest. An order that has ended takes one word more: the
outcome of a node that had claimed it before it expired, for what has happened counts more than that it was late.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.errors import ConflictError
from shared.orders import OrderState, OrderView
from shared.wire import short


class OrderMove(StrEnum):
    CREATE = "create"
    CLAIM = "claim"
    UPDATE = "update"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"


_S, _M = OrderState, OrderMove

MOVES: Final[dict[tuple[OrderState, OrderMove], OrderState]] = {
    (_S.PENDING, _M.CLAIM): _S.CLAIMED,
    (_S.PENDING, _M.CANCEL): _S.CANCELLED,
    (_S.PENDING, _M.EXPIRE): _S.EXPIRED,
    (_S.CLAIMED, _M.CLAIM): _S.CLAIMED,
    (_S.CLAIMED, _M.UPDATE): _S.IN_PROGRESS,
    (_S.CLAIMED, _M.COMPLETE): _S.COMPLETED,
    (_S.CLAIMED, _M.FAIL): _S.FAILED,
    (_S.CLAIMED, _M.CANCEL): _S.CANCELLED,
    (_S.CLAIMED, _M.EXPIRE): _S.EXPIRED,
    (_S.IN_PROGRESS, _M.UPDATE): _S.IN_PROGRESS,
    (_S.IN_PROGRESS, _M.COMPLETE): _S.COMPLETED,
    (_S.IN_PROGRESS, _M.FAIL): _S.FAILED,
    (_S.IN_PROGRESS, _M.CANCEL): _S.CANCELLED,
    (_S.IN_PROGRESS, _M.EXPIRE): _S.EXPIRED,
    (_S.EXPIRED, _M.COMPLETE): _S.COMPLETED,
    (_S.EXPIRED, _M.FAIL): _S.FAILED,
}
"""`(where, what is asked) -> where next`. A pair that is not here is not a move."""

_ENDS: Final = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED})
_BY_NODE: Final = frozenset({_M.CLAIM, _M.UPDATE, _M.COMPLETE, _M.FAIL})


@dataclass(frozen=True)
class Step:
    """`eta_s` counts from now; None leaves what was promised."""

    move: OrderMove
    who: str
    reason: str = ""
    eta_s: float | None = None


def apply(order: OrderView, step: Step, now: float) -> OrderView:
    """The order after this step. Raises ConflictError for a move that the table does not have."""
    after = MOVES.get((order.state, step.move))
    late = order.state is OrderState.EXPIRED and order.claimed is None
    if after is None or late:
        raise ConflictError(
            f"order {order.id} is {order.state}"
            + (f": {order.reason}" if order.reason else "")
            + f"; there is nothing to {step.move}",
            remedy=f"see what became of it: rollcall order show {order.id}",
        )
    changes: dict[str, object] = {
        "state": after,
        "revision": order.revision + 1,
        "reason": short(step.reason) or ("" if after in _ENDS else order.reason),
    }
    if after is not order.state:
        changes["since"] = now
    if step.move in _BY_NODE:
        changes["updated"] = now
    if step.move is OrderMove.CLAIM:
        changes["claimed"] = order.claimed or now
    if step.eta_s is not None:
        changes["eta"] = now + step.eta_s
    if after in _ENDS:
        changes["ended"] = now
    return order.model_copy(update=changes)


def is_due(order: OrderView, now: float) -> bool:
    """Whether an open order has stood longer than it may."""
    expires = order.expires is not None and order.expires <= now
    return expires and (order.state, OrderMove.EXPIRE) in MOVES


def why_expired(order: OrderView) -> str:
    if order.claimed is None:
        return f"{order.node} did not claim it in time"
    return f"{order.node} claimed it and did not end it in time"
