"""The one place where a request meets the route table.

Whatever a route declares is enforced here, in this order: who may call, path parameters, query, size and shape of the
body, the Idempotency-Key (idempotency.py), If-Match (versions.py). What changes something is written into the audit log
in the transaction that changes it, and at any rate before the answer goes out; an answer that is given again changed
nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.api import idempotency, versions
from coordinator.api.access import Access, AccessError, Allows, Caller
from coordinator.api.recorder import Recorder
from coordinator.api.routes import READING, Call, Media, Number, Resource, Route
from coordinator.audit import Entry
from coordinator.store.replays import KeptAnswer
from coordinator.store.settling import Settlement, settling
from shared.errors import BadInputError, RollcallError
from shared.failpoint import fail_point
from shared.http import Speaker, application, problem, read_body, wire_response
from shared.protocol import ProtocolRange
from shared.wire import Wire, short

DETAIL_CHARS = 300
SUBJECT_CHARS = 100


class Gate:
    """Between the listener and the handlers of all resources."""

    def __init__(self, access: Access, recorder: Recorder, replays: idempotency.Replays) -> None:
        self._access, self._recorder, self._replays = access, recorder, replays
        self._changing: dict[Resource, asyncio.Lock] = {}

    def application(self, resources: Sequence[Resource], speaks: ProtocolRange) -> web.Application:
        app = application(Speaker("this coordinator", speaks))
        for resource in resources:
            self._changing[resource] = asyncio.Lock()
            for route in resource.routes:
                serve = partial(self._serve, resource, route)
                app.router.add_route(route.method, route.path, serve)
        return app

    def admit(self, caller: Caller, route: Route) -> None:
        self._access.admit(caller, route.allows)

    async def told(
        self, route: Route, call: Call, answering: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """The answer, which may be a refusal; with its row in the audit log."""
        try:
            answer = await answering
        except RollcallError as error:
            call.detail = error.message
            answer = _refused(error)
        except Exception:
            call.detail = "failed here; the log has the details"
            await self._record(route, call, status=500)
            raise
        if not call.replayed and not call.recorded:
            await self._record(route, call, answer.status)
        fail_point("api.answering")
        return answer

    async def carry_out(
        self, resource: Resource, route: Route, call: Call, described: str
    ) -> web.StreamResponse:
        """What was admitted and read. `described` tells requests under the call's Idempotency-Key apart; without a
        key nobody reads it."""
        if call.key is None:
            return (await self._settled(resource, route, call, None))[0]
        asked = idempotency.Asked(call.caller.who, call.key, described, route.secret)
        perform = partial(self._settled_or_refused, resource, route, call, asked)
        answer, call.replayed = await self._replays.once(
            asked, perform, partial(self._note, route, call)
        )
        return answer

    async def _serve(
        self, resource: Resource, route: Route, request: web.Request
    ) -> web.StreamResponse:
        caller = await self._caller(route, request)
        subject = short(" ".join(request.match_info.values()), SUBJECT_CHARS)
        call = Call(caller, {}, {}, None, subject, request=request)
        return await self.told(route, call, self._answer(resource, route, call, request))

    async def _caller(self, route: Route, request: web.Request) -> Caller:
        """Routes that are for anyone do not look at tokens: they cannot be used to try some."""
        if route.allows is Allows.ANYONE:
            return Caller(request.remote or "-")
        return await self._access.identify(request)

    async def _answer(
        self, resource: Resource, route: Route, call: Call, request: web.Request
    ) -> web.StreamResponse:
        self.admit(call.caller, route)
        call.parameters = read_parameters(route, request.match_info)
        call.query, call.words = read_query(route, request.query)
        call.key = idempotency.read_key(request) if route.takes_key else None
        call.if_match = request.headers.get(versions.HEADER)
        raw = await _read(route, request)
        call.body = _shaped(route, raw)
        described = "" if call.key is None else idempotency.describe_request(request, raw or b"")
        del raw  # thousands of requests wait from here on
        return await self.carry_out(resource, route, call, described)

    async def _settled_or_refused(
        self,
        resource: Resource,
        route: Route,
        call: Call,
        asked: idempotency.Asked,
    ) -> tuple[web.StreamResponse, bool]:
        """A refusal of the handler is an answer too, and kept as one."""
        try:
            return await self._settled(resource, route, call, asked)
        except RollcallError as error:
            call.detail = error.message
            return _refused(error), False

    async def _settled(
        self,
        resource: Resource,
        route: Route,
        call: Call,
        asked: idempotency.Asked | None,
    ) -> tuple[web.StreamResponse, bool]:
        """The answer, and whether the transaction that made the change has taken it along."""
        if asked is None and not route.is_recorded:
            return await self._perform(resource, route, call), False
        await self._recorder.settle()
        settlement = Settlement(partial(self._settle, route, call, asked))
        with settling(settlement):
            answer = await self._perform(resource, route, call)
        if not settlement.done:
            return answer, False
        call.recorded = True
        if settlement.answer is None:
            return answer, True
        made = _made(route, settlement.answer)
        if (version := answer.headers.get("ETag")) is not None:
            made.headers["ETag"] = version
        return made, True

    async def _settle(
        self,
        route: Route,
        call: Call,
        asked: idempotency.Asked | None,
        db: AsyncConnection,
        made: Wire | None,
    ) -> bool:
        """What was made is kept as the answer, if it is one of this route."""
        if made is not None and not (
            isinstance(route.answer, type) and isinstance(made, route.answer)
        ):
            return False
        if made is not None and route.about is not None:
            route.about(call, made)
        if asked is not None:
            if made is None:
                return False
            answer = _made(route, made)
            etag, body = answer.headers.get("ETag"), answer.body
            raw = body if isinstance(body, bytes) else b""
            kept = KeptAnswer(answer.status, answer.content_type, etag, raw)
            await self._replays.keep(db, asked, kept)
        await self._note(route, call, db, route.success[0])
        return True

    async def _perform(self, resource: Resource, route: Route, call: Call) -> web.StreamResponse:
        if route.etag is None:
            return await _handle(resource, route, call)
        if route.method in READING:
            version = await route.etag(resource, call)
            return _tagged(await _handle(resource, route, call), version)
        async with self._changing[resource]:
            found = await route.etag(resource, call)
            versions.check_match(call.if_match, found)
            answer = await _handle(resource, route, call)
            return _tagged(answer, await route.etag(resource, call))

    async def _note(self, route: Route, call: Call, db: AsyncConnection, status: int) -> None:
        """Changes, made or refused: as part of this transaction."""
        if route.is_recorded:
            await self._recorder.record_in(db, _entry(route, call, status))
        call.recorded = True

    async def _record(self, route: Route, call: Call, status: int) -> None:
        """Changes, made or refused, and refused logins on whatever route."""
        if route.is_recorded or call.caller.refusal is not None:
            await self._recorder.record(_entry(route, call, status))


def _entry(route: Route, call: Call, status: int) -> Entry:
    caller = call.caller
    return Entry(
        who=caller.who,
        role=caller.role,
        address=caller.address,
        action=route.action,
        subject=short(call.subject, SUBJECT_CHARS),
        status=status,
        detail=short(call.detail, DETAIL_CHARS),
    )


def _made(route: Route, made: Wire) -> web.Response:
    """The answer that says what was made."""
    answer = wire_response(made, status=route.success[0])
    if route.tag is not None:
        answer.headers["ETag"] = versions.quoted(route.tag(made))
    return answer


def _refused(error: RollcallError) -> web.Response:
    answer = problem(error)
    if isinstance(error, AccessError):
        answer.headers.update(error.headers)
    return answer


def read_parameters(route: Route, given: Mapping[str, str]) -> dict[str, str]:
    for name, pattern in route.parameters.items():
        if re.fullmatch(pattern, given[name]) is None:
            raise BadInputError(f"{short(given[name], 80)!r} is not of the form {pattern}")
    return dict(given)


def read_query(
    route: Route, given: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, str | None]]:
    """Numbers and words."""
    numbers: dict[str, int] = {}
    words: dict[str, str | None] = {}
    for each in route.query:
        text = given.get(each.name)
        if isinstance(each, Number):
            numbers[each.name] = each.read(text)
        else:
            words[each.name] = each.read(text)
    return numbers, words


async def _handle(resource: Resource, route: Route, call: Call) -> web.StreamResponse:
    answer = await route.handler(resource, call)
    if isinstance(answer, Wire):
        return wire_response(answer, status=route.success[0])
    return answer


def _tagged(answer: web.StreamResponse, version: str | None) -> web.StreamResponse:
    if version is not None:
        answer.headers["ETag"] = versions.quoted(version)
    return answer


async def _read(route: Route, request: web.Request) -> bytes | None:
    if route.body is None:
        return None
    return await read_body(request, limit=route.limit, deadline_s=route.deadline_s)


def _shaped(route: Route, raw: bytes | None) -> Wire | bytes | None:
    if raw is None or route.body is None or isinstance(route.body, Media):
        return raw
    return route.body.from_bytes(raw, max_bytes=route.limit)
