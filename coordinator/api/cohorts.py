"""`/v1/cohorts`: the workers of each build, and whether a build takes new work."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.drains import Drains
from shared.canonical import framed_sha256
from shared.cohorts import CohortAnswer, CohortView
from shared.errors import NotFoundError
from shared.nodes import Word
from shared.wire import Wire

QUEUE = r"[A-Za-z0-9]([A-Za-z0-9._:+-]{0,62}[A-Za-z0-9])?"


class CohortList(Wire):
    cohorts: list[CohortView]


class CohortRequest(Wire):
    build_id: Word
    dry_run: bool = False


class CohortsApi(Resource):
    def __init__(self, drains: Drains) -> None:
        self._drains = drains

    async def listing(self, _: Call) -> CohortList:
        return CohortList(cohorts=self._drains.count())

    async def of_queue(self, call: Call) -> CohortList:
        queue = call.parameters["queue"]
        found = [each for each in self._drains.count() if each.queue == queue]
        if not found:
            raise NotFoundError(
                f"no worker serves queue {queue!r}", remedy="see: rollcall cohort list"
            )
        return CohortList(cohorts=found)

    async def version(self, call: Call) -> str | None:
        """Of a queue: which builds there are, and which of them are drained. What workers have in hand is none."""
        queue = call.parameters["queue"]
        builds = [
            f"{each.build_id} {each.drained_at}"
            for each in self._drains.count()
            if each.queue == queue
        ]
        return framed_sha256([each.encode() for each in builds])[:16] if builds else None

    async def drain(self, call: Call) -> CohortAnswer:
        asked, key = _asked(call)
        return await self._drains.drain(key, call.caller.who, dry_run=asked.dry_run)

    async def resume(self, call: Call) -> CohortAnswer:
        asked, key = _asked(call)
        return await self._drains.resume(key, dry_run=asked.dry_run)

    routes = (
        Route(
            "GET",
            "/v1/cohorts",
            listing,
            Allows.VIEWER,
            "Every build of every queue, with its workers and their work.",
            answer=CohortList,
        ),
        Route(
            "GET",
            "/v1/cohorts/{queue}",
            of_queue,
            Allows.VIEWER,
            "Every build of one queue.",
            parameters={"queue": QUEUE},
            answer=CohortList,
            refusals=(404,),
            etag=version,
        ),
        Route(
            "POST",
            "/v1/cohorts/{queue}/drain",
            drain,
            Allows.OPERATOR,
            "Have a build take no new work; what it has in hand it finishes.",
            parameters={"queue": QUEUE},
            body=CohortRequest,
            answer=CohortAnswer,
            refusals=(404, 409),
            etag=version,
        ),
        Route(
            "POST",
            "/v1/cohorts/{queue}/resume",
            resume,
            Allows.OPERATOR,
            "Have a build take work again.",
            parameters={"queue": QUEUE},
            body=CohortRequest,
            answer=CohortAnswer,
            refusals=(404,),
            etag=version,
        ),
    )


def _asked(call: Call) -> tuple[CohortRequest, tuple[str, str]]:
    asked = call.wire(CohortRequest)
    key = (call.parameters["queue"], asked.build_id)
    call.subject, call.detail = " ".join(key), "only tried" if asked.dry_run else ""
    return asked, key
