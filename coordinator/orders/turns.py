"""Whether a node may go out of service for an order now (P7): pure. A node that serves is not taken out while as
many others are out as may be, by their readiness or by an order in hand. One that does not serve may always be
mended, and an operator may say that it is urgent."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shared.messages import Verdict
from shared.orders import OrderKind, OrderView
from shared.rollout import NodeView

TAKES_OUT = frozenset(
    {
        OrderKind.RESTART,
        OrderKind.ROLLBACK,
        OrderKind.INSTALL_CAPABILITY,
        OrderKind.REMOVE_CAPABILITY,
    }
)
SHOWN = 5


def why_not_now(
    order: OrderView, views: Mapping[str, NodeView], held: Collection[str], most: int
) -> str:
    """Why the claim is refused, empty when it is not. `held` are nodes with such an order in hand, `most` is how
    many may be out at once. Nodes that run nothing yet count neither way."""
    own = views.get(order.node)
    serves = own is not None and own.status is Verdict.GREEN
    if order.kind not in TAKES_OUT or order.terms.urgent or not serves:
        return ""
    out = {
        name
        for name, view in views.items()
        if view.release is not None and view.status is not Verdict.GREEN
    }
    others = sorted((out | (set(held) & views.keys())) - {order.node})
    if len(others) < most:
        return ""
    named = ", ".join(others[:SHOWN])
    return f"at most {most} may be out at once, and these are: {named}"
