"""`/nodes/{name}`: one node, and what can be ordered of it."""

from __future__ import annotations

from typing import Any

from coordinator.api.nodes import NodeDetail
from coordinator.api.reds import RedList
from coordinator.api.releases import ReleaseList
from coordinator.page.deeds import MUST_REASON, REASON, Answer, Deed, Field, Told
from coordinator.page.pages.fleet import OFTEN_MS, last_rollout, nodes_of
from coordinator.page.views.node import AboutNode, node_page, what_order_does
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.nodes import AttributesRequest
from shared.orders import OrderKind, OrderList, OrderRequest
from shared.rollout import NodeView
from shared.roster import NodeClass, Role
from shared.traffic import NodeTraffic, SetShare, TrafficView
from shared.wire import Wire


class NodePages(Group):
    async def show(self, visit: Visit) -> Drawn:
        name = visit.path["name"]
        detail = await visit.read(NodeDetail, "GET /v1/nodes/{name}", {"name": name})
        orders = await visit.read(OrderList, "GET /v1/orders", query={"node": name, "limit": "20"})
        about = AboutNode(
            node=detail.node,
            upgrades=detail.upgrades,
            everyone=await nodes_of(visit),
            reds=(await visit.read(RedList, "GET /v1/reds")).reds,
            rollout=await last_rollout(visit),
            orders=orders.orders,
            traffic=await traffic_of(visit, name),
        )
        releases = (await visit.read(ReleaseList, "GET /v1/releases")).releases
        values = {
            "page": node_page(about),
            "release": next((each for each in releases if each.id == detail.node.release), None),
            "every_ms": OFTEN_MS,
        }
        return Drawn("node.html", name, values, active="/")

    routes = (PageRoute("GET", "/nodes/{name}", show),)


async def traffic_of(visit: Visit, name: str) -> NodeTraffic | None:
    nodes = (await visit.read(TrafficView, "GET /v1/traffic")).nodes
    return next((each for each in nodes if each.node == name), None)


async def node_of(visit: Visit) -> NodeView:
    detail = await visit.read(NodeDetail, "GET /v1/nodes/{name}", {"name": visit.path["name"]})
    return detail.node


class OrderDeed(Deed):
    active = "/"
    action = "POST /v1/orders"

    def __init__(self, kind: OrderKind, label: str, *, danger: bool) -> None:
        self._kind, self._label, self._danger = kind, label, danger
        self.path = f"/nodes/{{name}}/{kind}"

    async def tell(self, visit: Visit) -> Told:
        node = await node_of(visit)
        urgent = Field("urgent", "Urgent: whoever else is out of service", "checkbox")
        drain = Field("drain", "Drain it first", "checkbox", "yes")
        fields = {
            OrderKind.RESTART: (drain, urgent, REASON),
            OrderKind.ROLLBACK: (urgent, REASON),
        }.get(self._kind, (REASON,))
        return Told(
            title=f"{self._label}: {node.name}",
            lines=what_order_does(node, self._kind),
            button=self._label,
            back=f"/nodes/{node.name}",
            fields=fields,
            danger=self._danger,
        )

    def body(self, visit: Visit) -> Wire:
        terms: dict[str, Any] = {
            "urgent": visit.ticked("urgent"),
            "reason": visit.typed("reason"),
        }
        if self._kind is OrderKind.RESTART:
            terms["drain"] = visit.ticked("drain")
        return OrderRequest.from_value(
            {"kind": self._kind, "node": visit.path["name"], "terms": terms}
        )

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(f"/nodes/{visit.path['name']}", f"Ordered: {self._label.lower()}.")


class ShareDeed(Deed):
    """Cordon and uncordon: a share of 0 that stands, and giving it back."""

    active = "/"
    action = "POST /v1/traffic/nodes/{name}"

    def __init__(self, *, cordon: bool) -> None:
        self._cordon = cordon
        self._verb = "Cordon" if cordon else "Uncordon"
        self.path = f"/nodes/{{name}}/{self._verb.lower()}"

    async def tell(self, visit: Visit) -> Told:
        name = (await node_of(visit)).name
        lines = (
            [
                f"{name} is to take no traffic: its share is set to 0 % and stays there until it is given back.",
                "Load balancers hear it from its agent within seconds. Work in hand finishes; nothing is restarted.",
            ]
            if self._cordon
            else [
                f"The share of {name} is given back: while it is green its traffic widens step by step again.",
                "Each step is watched, as after an upgrade. For all of it at once, set its share on the traffic page.",
            ]
        )
        return Told(
            f"{self._verb}: {name}",
            lines,
            self._verb,
            f"/nodes/{name}",
            (MUST_REASON,),
            self._cordon,
        )

    def body(self, visit: Visit) -> Wire:
        share: dict[str, Any] = {"percent": 0} if self._cordon else {"auto": True}
        return SetShare.from_value({**share, "reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(f"/nodes/{visit.path['name']}", f"Done: {self._verb.lower()}.")


class DescribeDeed(Deed):
    active = "/"
    path = "/nodes/{name}/describe"
    action = "PUT /v1/nodes/{name}/attributes"

    async def tell(self, visit: Visit) -> Told:
        node = await node_of(visit)
        return Told(
            title=f"Describe {node.name}",
            lines=[
                "Role and class decide when a rollout moves it, the site who else may be out meanwhile.",
                "Role and site stand in the signed roster, which all agents are then given anew.",
            ],
            button="Save",
            back=f"/nodes/{node.name}",
            fields=(
                Field("role", "Role", "select", node.role, options=_pairs(Role)),
                Field("class_", "Class", "select", node.class_, options=_pairs(NodeClass)),
                Field("site", "Site", value=node.site),
                Field("provider", "Provider", value=node.provider),
                Field("region", "Region", value=node.region),
                Field("address", "Address", value=node.address, hint="for ssh: user@host"),
            ),
        )

    def body(self, visit: Visit) -> Wire:
        names = ("role", "class_", "site", "provider", "region", "address")
        return AttributesRequest.from_value(
            {name: visit.typed(name) for name in names if name in visit.form}
        )

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(f"/nodes/{visit.path['name']}", "Saved.")


def _pairs(words: type[Role] | type[NodeClass]) -> tuple[tuple[str, str], ...]:
    return tuple((str(each), str(each)) for each in words)


DEEDS: tuple[Deed, ...] = (
    OrderDeed(OrderKind.RESTART, "Restart", danger=True),
    OrderDeed(OrderKind.ROLLBACK, "Roll back", danger=True),
    OrderDeed(OrderKind.COLLECT_LOGS, "Collect logs", danger=False),
    ShareDeed(cordon=True),
    ShareDeed(cordon=False),
    DescribeDeed(),
)
