"""`/v1/capabilities`: signed plugins and skills, which of them are in use, and the runs that change that."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Resource, Route
from coordinator.capabilities.book import CapabilityBook
from shared.capability import (
    CAPABILITY_NAME,
    CapabilityDetail,
    CapabilityList,
    CapabilityRun,
    PublishRequest,
    UnpublishRequest,
)
from shared.http import wire_response


def _begun(call: Call, run: CapabilityRun) -> None:
    call.subject, call.detail = f"capability {run.label}", f"run {run.id}: {run.note}"


def _answer(call: Call, run: CapabilityRun, *, dry_run: bool) -> web.Response:
    _begun(call, run)
    if dry_run:
        call.detail = f"dry run: {run.note}"
    return wire_response(run, status=200 if dry_run else 201)


class CapabilitiesApi(Resource):
    def __init__(self, book: CapabilityBook) -> None:
        self._book = book

    async def listing(self, _: Call) -> CapabilityList:
        return CapabilityList(capabilities=await self._book.listed())

    async def show(self, call: Call) -> CapabilityDetail:
        return await self._book.detail(call.parameters["name"])

    async def publish(self, call: Call) -> web.Response:
        asked, caller = call.wire(PublishRequest), call.caller
        run = await self._book.publish(asked, caller.who, caller.role, call.key)
        return _answer(call, run, dry_run=asked.dry_run)

    async def unpublish(self, call: Call) -> web.Response:
        asked, caller = call.wire(UnpublishRequest), call.caller
        run = await self._book.unpublish(asked, caller.who, caller.role, call.key)
        return _answer(call, run, dry_run=asked.dry_run)

    async def run(self, call: Call) -> CapabilityRun:
        return await self._book.run_of(call.parameters["id"])

    routes = (
        Route(
            "GET",
            "/v1/capabilities",
            listing,
            Allows.VIEWER,
            "Every signed version of every capability, and which of them is in use where.",
            answer=CapabilityList,
        ),
        Route(
            "GET",
            "/v1/capabilities/{name}",
            show,
            Allows.VIEWER,
            "The versions of one capability, and its latest runs with their gates.",
            parameters={"name": CAPABILITY_NAME},
            answer=CapabilityDetail,
            refusals=(404,),
        ),
        Route(
            "POST",
            "/v1/capabilities/publish",
            publish,
            Allows.OPERATOR,
            "Begin to put a signed capability onto nodes, through gates G0 to G9.",
            body=PublishRequest,
            answer=CapabilityRun,
            success=(201, 200),
            refusals=(404, 409),
            about=_begun,
        ),
        Route(
            "POST",
            "/v1/capabilities/unpublish",
            unpublish,
            Allows.OPERATOR,
            "Begin to take a capability off its nodes, through gates U0 to U4.",
            body=UnpublishRequest,
            answer=CapabilityRun,
            success=(201, 200),
            refusals=(404, 409),
            about=_begun,
        ),
        Route(
            "GET",
            "/v1/capability-runs/{id}",
            run,
            Allows.VIEWER,
            "One run: how far each gate and each node is.",
            parameters={"id": SHORT_ID},
            answer=CapabilityRun,
            refusals=(404,),
        ),
    )
