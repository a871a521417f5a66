"""The form of the route table, and the one place where a request meets it.

A resource is a class with `routes`: one `Route` for each thing that it does. Whatever a route declares
is enforced here, in this order: who may call, path parameters, query, size and shape of the body. What
changes something is written into the audit log before the answer goes out. The OpenAPI description is
made from the same table (openapi.py), so a new route needs a line in `routes` and nothing else.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, TypeVar

from aiohttp import web

from coordinator.api.access import Access, AccessError, Allows, Caller
from coordinator.api.recorder import Recorder
from coordinator.audit import Entry
from shared.canonical import MAX_JSON_BYTES
from shared.envelope import DsseEnvelope
from shared.errors import BadInputError, RollcallError
from shared.http import BODY_DEADLINE_S, Speaker, application, problem, read_body, wire_response
from shared.protocol import ProtocolRange
from shared.wire import Wire, short

SHA256 = r"[0-9a-f]{64}"
SHORT_ID = r"[0-9a-f]{8}"
DETAIL_CHARS = 300
SUBJECT_CHARS = 100
READING = frozenset({"GET"})

W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Media:
    """A body that reaches the handler as bytes of this content type; `shape` only describes it."""

    type: str
    shape: builtins.type[Wire] | None = None


JSON = Media("application/json")
ENVELOPE = Media("application/json", DsseEnvelope)
BINARY = Media("application/octet-stream")


@dataclass(frozen=True)
class Number:
    """A query parameter: a whole number from `lowest` to `highest`, `default` when it is absent."""

    name: str
    default: int
    highest: int
    summary: str
    lowest: int = 0

    def read(self, text: str | None) -> int:
        if text is None:
            return self.default
        digits = text.isascii() and text.isdigit() and len(text) <= 18
        if not digits or not self.lowest <= int(text) <= self.highest:
            raise BadInputError(
                f"{self.name} is a whole number from {self.lowest} to {self.highest}"
            )
        return int(text)


@dataclass
class Call:
    """One request that was let in. `subject` and `detail` go into the audit log; a handler that knows
    better than the path what it changed says so."""

    caller: Caller
    parameters: Mapping[str, str]
    query: Mapping[str, int]
    body: Wire | bytes | None
    subject: str
    detail: str = ""

    def wire(self, model: type[W]) -> W:
        """The body, as the model that the route declares."""
        if not isinstance(self.body, model):
            raise TypeError(f"the route declares no body of {model.__name__}")
        return self.body

    @property
    def raw(self) -> bytes:
        if not isinstance(self.body, bytes):
            raise TypeError("the route declares no body of bytes")
        return self.body


Answer = Wire | web.StreamResponse
Handler = Callable[[Any, Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """`handler` is the resource's method. `success` lists the statuses of good answers, the usual one
    first; `refusals` those that only this route gives (access, size and shape are known already).
    `recorded` keeps what changes nothing that an operator would ask about out of the audit log."""

    method: str
    path: str
    handler: Handler
    allows: Allows
    summary: str
    body: type[Wire] | Media | None = None
    answer: type[Wire] | Media | None = None
    success: tuple[int, ...] = (200,)
    refusals: tuple[int, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: tuple[Number, ...] = ()
    limit: int = MAX_JSON_BYTES
    deadline_s: float = BODY_DEADLINE_S
    recorded: bool = True

    def __post_init__(self) -> None:
        if set(re.findall(r"\{(\w+)\}", self.path)) != set(self.parameters):
            raise ValueError(f"{self.action}: each path parameter needs a pattern")

    @property
    def action(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_recorded(self) -> bool:
        return self.recorded and self.method not in READING


class Resource:
    """A part of the API. Its handlers are the methods that its routes name."""

    routes: ClassVar[Sequence[Route]] = ()


class Gate:
    """Between the listener and the handlers of all resources."""

    def __init__(self, access: Access, recorder: Recorder) -> None:
        self._access, self._recorder = access, recorder

    def application(self, resources: Sequence[Resource], speaks: ProtocolRange) -> web.Application:
        app = application(Speaker("this coordinator", speaks))
        for resource in resources:
            for route in resource.routes:
                serve = partial(self._serve, resource, route)
                app.router.add_route(route.method, route.path, serve)
        return app

    async def _serve(
        self, resource: Resource, route: Route, request: web.Request
    ) -> web.StreamResponse:
        caller = await self._caller(route, request)
        subject = short(" ".join(request.match_info.values()), SUBJECT_CHARS)
        call = Call(caller, {}, {}, None, subject)
        try:
            answer = await self._answer(resource, route, call, request)
        except RollcallError as error:
            call.detail = error.message
            answer = _refused(error)
        except Exception:
            call.detail = "failed here; the log has the details"
            await self._record(route, call, status=500)
            raise
        await self._record(route, call, answer.status)
        return answer

    async def _caller(self, route: Route, request: web.Request) -> Caller:
        """Routes that are for anyone do not look at tokens: they cannot be used to try some."""
        if route.allows is Allows.ANYONE:
            return Caller(request.remote or "-")
        return await self._access.identify(request)

    async def _answer(
        self, resource: Resource, route: Route, call: Call, request: web.Request
    ) -> web.StreamResponse:
        self._access.admit(call.caller, route.allows)
        call.parameters = _parameters(route, request)
        call.query = {each.name: each.read(request.query.get(each.name)) for each in route.query}
        call.body = await _body(route, request)
        answer = await route.handler(resource, call)
        if isinstance(answer, Wire):
            return wire_response(answer, status=route.success[0])
        return answer

    async def _record(self, route: Route, call: Call, status: int) -> None:
        """Changes, made or refused, and refused logins on whatever route."""
        caller = call.caller
        if not route.is_recorded and caller.refusal is None:
            return
        await self._recorder.record(
            Entry(
                who=caller.who,
                role=caller.role,
                address=caller.address,
                action=route.action,
                subject=short(call.subject, SUBJECT_CHARS),
                status=status,
                detail=short(call.detail, DETAIL_CHARS),
            )
        )


def _refused(error: RollcallError) -> web.Response:
    answer = problem(error)
    if isinstance(error, AccessError):
        answer.headers.update(error.headers)
    return answer


def _parameters(route: Route, request: web.Request) -> dict[str, str]:
    for name, pattern in route.parameters.items():
        if re.fullmatch(pattern, request.match_info[name]) is None:
            text = short(request.match_info[name], 80)
            raise BadInputError(f"{text!r} is not of the form {pattern}")
    return dict(request.match_info)


async def _body(route: Route, request: web.Request) -> Wire | bytes | None:
    if route.body is None:
        return None
    raw = await read_body(request, limit=route.limit, deadline_s=route.deadline_s)
    if isinstance(route.body, Media):
        return raw
    return route.body.from_bytes(raw, max_bytes=route.limit)
