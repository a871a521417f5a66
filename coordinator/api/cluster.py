"""`/v1/cluster/info`: versions and protocols of the coordinator and of every node, to be looked at before an
upgrade of either (seed 004: abort when ranges do not overlap)."""

from __future__ import annotations

import platform

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.fleet import FleetState
from shared.protocol import FIRST, ProtocolRange
from shared.roster import NodeClass
from shared.wire import NodeName, Sha256, Wire


class NodeProtocol(Wire):
    """`protocol` is what the node reported last; None before its first report. `release` and `build_id` say which
    build it is; `queue` and `build_id` only a worker has."""

    name: NodeName
    class_: NodeClass = NodeClass.GATEWAY
    release: Sha256 | None = None
    openclaw: str | None = None
    queue: str | None = None
    build_id: str | None = None
    agent_version: str
    protocol: ProtocolRange | None
    overlaps: bool
    """With the coordinator's own range, and with that of every other node that has reported."""


class ClusterInfo(Wire):
    """`schema_revision` is the form of the coordinator's database."""

    version: str
    schema_revision: str = ""
    python: str = ""
    protocol: ProtocolRange
    nodes: list[NodeProtocol]


class ClusterApi(Resource):
    def __init__(
        self, version: str, speaks: ProtocolRange, fleet: FleetState, schema_revision: str
    ) -> None:
        self._version, self._speaks, self._fleet = version, speaks, fleet
        self._revision = schema_revision

    async def info(self, _: Call) -> ClusterInfo:
        views = (await self._fleet.fleet()).nodes.values()
        spoken = {view.name: view.protocol or FIRST for view in views if view.agent_version}
        everyone = [self._speaks, *spoken.values()]
        return ClusterInfo(
            version=self._version,
            schema_revision=self._revision,
            python=platform.python_version(),
            protocol=self._speaks,
            nodes=[
                NodeProtocol(
                    name=view.name,
                    class_=view.class_,
                    release=view.release,
                    openclaw=view.version_running,
                    queue=None if view.cohort is None else view.cohort.queue,
                    build_id=None if view.cohort is None else view.cohort.build_id,
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
