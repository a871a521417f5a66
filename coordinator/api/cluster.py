"""`/v1/cluster/info`: versions and protocols of the coordinator and of every node, to be looked at before an
upgrade of either (seed 004: abort when ranges do not overlap)."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.fleet import FleetState
from shared.protocol import FIRST, ProtocolRange
from shared.wire import NodeName, Wire


class NodeProtocol(Wire):
    """`protocol` is what the node reported last; None before its first report."""

    name: NodeName
    agent_version: str
    protocol: ProtocolRange | None
    overlaps: bool
    """With the coordinator's own range, and with that of every other node that has reported."""


class ClusterInfo(Wire):
    version: str
    protocol: ProtocolRange
    nodes: list[NodeProtocol]


class ClusterApi(Resource):
    def __init__(self, version: str, speaks: ProtocolRange, fleet: FleetState) -> None:
        self._version, self._speaks, self._fleet = version, speaks, fleet

    async def info(self, _: Call) -> ClusterInfo:
        views = (await self._fleet.fleet()).nodes.values()
        spoken = {view.name: view.protocol or FIRST for view in views if view.agent_version}
        everyone = [self._speaks, *spoken.values()]
        return ClusterInfo(
            version=self._version,
            protocol=self._speaks,
            nodes=[
                NodeProtocol(
                    name=view.name,
                    agent_version=view.agent_version,
                    protocol=spoken.get(view.name),
                    overlaps=view.name in spoken
                    and all(spoken[view.name].overlaps(other) for other in everyone),
                )
                for view in views
            ],
        )

    routes = (
        Route(
            "GET",
            "/v1/cluster/info",
            info,
            Allows.MEMBER,
            "Versions and protocol ranges of this coordinator and of every node.",
            answer=ClusterInfo,
        ),
    )
