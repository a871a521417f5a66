"""`/v1/audit`: who changed what, in pages. The reader checks the chain, not the coordinator."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.recorder import Recorder
from coordinator.api.routes import Call, Number, Resource, Route
from coordinator.audit import AuditPage
from coordinator.store.audit import AuditLog

MAX_PAGE = 500


class AuditApi(Resource):
    def __init__(self, log: AuditLog, recorder: Recorder) -> None:
        self._log, self._recorder = log, recorder

    async def page(self, call: Call) -> web.Response:
        """Rows go out as they are stored: one that was tampered with must reach the operator too."""
        await self._recorder.settle()
        rows = await self._log.page(call.query["after"], call.query["limit"])
        return web.json_response({"rows": rows, "last": await self._log.last()})

    routes = (
        Route(
            "GET",
            "/v1/audit",
            page,
            Allows.VIEWER,
            "The audit log, oldest first.",
            answer=AuditPage,
            query=(
                Number("after", 0, 10**15, "Rows after the one with this id."),
                Number("limit", 100, MAX_PAGE, "At most so many rows.", lowest=1),
            ),
        ),
    )
