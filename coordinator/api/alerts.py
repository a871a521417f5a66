"""`/v1/alerts`: what people must see to, the coordinator's own and the nodes'. Nothing waits for them."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.fleet import FleetState
from coordinator.repository import Repository
from shared.wire import Reason, Wire


class Alert(Wire):
    """`where` is a node, or `coordinator`."""

    where: str
    text: Reason


class AlertList(Wire):
    alerts: list[Alert]


class AlertsApi(Resource):
    def __init__(self, repository: Repository, fleet: FleetState) -> None:
        self._repository, self._fleet = repository, fleet

    async def listing(self, _: Call) -> AlertList:
        fleet = await self._fleet.fleet()
        own = [Alert(where="coordinator", text=text) for text in self._repository.alerts()]
        theirs = [
            Alert(where=name, text=text)
            for name, node in fleet.nodes.items()
            for text in node.alerts
        ]
        return AlertList(alerts=[*own, *theirs])

    routes = (
        Route(
            "GET",
            "/v1/alerts",
            listing,
            Allows.VIEWER,
            "What people must see to.",
            answer=AlertList,
        ),
    )
