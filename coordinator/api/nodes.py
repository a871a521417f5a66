"""`/v1/nodes/{name}`: one node, what operators say of it, and every upgrade that it has ended."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Number, Resource, Route
from coordinator.api.versions import version_of
from coordinator.fleet import FleetState
from coordinator.store.nodes import NodeQueries
from coordinator.upgrades import UpgradeBook
from shared.errors import NotFoundError
from shared.nodes import AttributesChange, AttributesRequest, NodeAttributes, NodeUpgrade
from shared.rollout import NodeView
from shared.wire import NODE_NAME, Wire

LAST_UPGRADES = 10
SIGNED = {"role", "site"}
"""Attributes that stand in the roster too."""


class NodeDetail(Wire):
    """`upgrades` are the last ten, newest first."""

    node: NodeView
    upgrades: list[NodeUpgrade]


class UpgradeList(Wire):
    """Newest first."""

    upgrades: list[NodeUpgrade]


def _described(call: Call, change: AttributesChange) -> None:
    tried = "only tried: " if call.wire(AttributesRequest).dry_run else ""
    call.detail = f"{tried}{', '.join(change.changed) or 'nothing changed'}"


class NodesApi(Resource):
    def __init__(self, nodes: NodeQueries, fleet: FleetState, upgrades: UpgradeBook) -> None:
        self._nodes, self._fleet, self._upgrades = nodes, fleet, upgrades

    async def show(self, call: Call) -> NodeDetail:
        name = call.parameters["name"]
        node = next((each for each in await self._fleet.nodes() if each.name == name), None)
        if node is None:
            raise NotFoundError(f"no node {name!r} has joined", remedy="see: rollcall node list")
        return NodeDetail(node=node, upgrades=await self._upgrades.of(name, LAST_UPGRADES))

    async def attributes(self, call: Call) -> NodeAttributes:
        return await self._nodes.attributes(call.parameters["name"])

    async def version(self, call: Call) -> str:
        return version_of(await self.attributes(call))

    async def describe(self, call: Call) -> AttributesChange:
        name, asked = call.parameters["name"], call.wire(AttributesRequest)
        change = await self._nodes.describe(name, asked)
        if not asked.dry_run and SIGNED & set(change.changed):
            await self._fleet.publish_roster()
        _described(call, change)
        return change

    async def upgrades(self, call: Call) -> UpgradeList:
        """Also of a node that was revoked since. Raises NotFoundError for one of which there is nothing at all."""
        name = call.parameters["name"]
        found = await self._upgrades.of(name, call.query["limit"])
        if not found:
            await self._nodes.attributes(name)
        return UpgradeList(upgrades=found)

    routes = (
        Route(
            "GET",
            "/v1/nodes/{name}",
            show,
            Allows.VIEWER,
            "One node with its last ten upgrades.",
            parameters={"name": NODE_NAME},
            answer=NodeDetail,
            refusals=(404,),
        ),
        Route(
            "GET",
            "/v1/nodes/{name}/attributes",
            attributes,
            Allows.VIEWER,
            "What operators have said of a node.",
            parameters={"name": NODE_NAME},
            answer=NodeAttributes,
            refusals=(404,),
            etag=version,
        ),
        Route(
            "PUT",
            "/v1/nodes/{name}/attributes",
            describe,
            Allows.OPERATOR,
            "Say of a node what it is: class, role, site, labels and where it stands.",
            parameters={"name": NODE_NAME},
            body=AttributesRequest,
            answer=AttributesChange,
            refusals=(404,),
            etag=version,
            about=_described,
        ),
        Route(
            "GET",
            "/v1/nodes/{name}/upgrades",
            upgrades,
            Allows.VIEWER,
            "Every upgrade that a node has ended.",
            parameters={"name": NODE_NAME},
            answer=UpgradeList,
            refusals=(404,),
            query=(Number("limit", 1000, 10_000, "So many at most.", lowest=1),),
        ),
    )
