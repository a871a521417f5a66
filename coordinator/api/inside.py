"""The API's routes for a part of this process that has let its caller in by itself: the admin page.

What a route declares holds here as well: who may, the form of parameters, query and body, the Idempotency-Key, the
audit log. Only HTTP is left out, so that a page of a thousand nodes does not write and parse them as JSON first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from coordinator.api.access import Caller
from coordinator.api.gate import SUBJECT_CHARS, Gate, read_parameters, read_query
from coordinator.api.routes import READING, Answer, Call, Resource, Route
from shared.canonical import framed_sha256, parse_json
from shared.errors import RollcallError
from shared.http import refusal_of
from shared.wire import Wire, short

MAX_ANSWER = 32 << 20

W = TypeVar("W", bound=Wire)


@dataclass(frozen=True)
class Ask:
    """`action` is a route's, such as `POST /v1/rollouts/{id}/pause`; `request` is for answers that go out in pieces."""

    action: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Wire | bytes | None = None
    key: str | None = None
    request: web.Request | None = None


class Inside:
    def __init__(self, gate: Gate, resources: Sequence[Resource]) -> None:
        self._gate = gate
        self._table = {
            route.action: (resource, route) for resource in resources for route in resource.routes
        }

    def must(self, caller: Caller, action: str) -> None:
        """Raises what the caller would be told who may not do this."""
        self._gate.admit(caller, self._table[action][1])

    def may(self, caller: Caller, action: str) -> bool:
        try:
            self.must(caller, action)
        except RollcallError:
            return False
        return True

    async def read(self, caller: Caller, model: type[W], ask: Ask) -> W:
        return read_answer(model, await self.ask(caller, ask))

    async def ask(self, caller: Caller, ask: Ask) -> Answer:
        """Raises what the API would have answered with."""
        resource, route = self._table[ask.action]
        subject = short(" ".join(ask.parameters.values()), SUBJECT_CHARS)
        call = Call(caller, {}, {}, ask.body, subject, key=ask.key, request=ask.request)
        if route.method in READING:
            self._let_in(route, call, ask)
            return await route.handler(resource, call)
        answer = await self._gate.told(route, call, self._change(resource, route, call, ask))
        if isinstance(answer, web.Response) and answer.status >= 400:
            raise refusal_of(answer.status, answer.body if isinstance(answer.body, bytes) else b"")
        return answer

    def _let_in(self, route: Route, call: Call, ask: Ask) -> None:
        self._gate.admit(call.caller, route)
        if ask.parameters.keys() != route.parameters.keys():
            raise TypeError(f"{route.action} has the parameters {sorted(route.parameters)}")
        if isinstance(route.body, type) and not isinstance(ask.body, route.body):
            raise TypeError(f"{route.action} wants a {route.body.__name__}")
        call.parameters = read_parameters(route, ask.parameters)
        call.query, call.words = read_query(route, ask.query)

    async def _change(
        self, resource: Resource, route: Route, call: Call, ask: Ask
    ) -> web.StreamResponse:
        self._let_in(route, call, ask)
        if not route.takes_key:
            call.key = None
        return await self._gate.carry_out(resource, route, call, _described(ask))


def read_answer(model: type[W], answer: Answer) -> W:
    """As the model that its route declares, or as one that reads it."""
    if isinstance(answer, model):
        return answer
    if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
        return model.from_value(parse_json(answer.body, max_bytes=MAX_ANSWER))
    raise TypeError(f"this answer is no {model.__name__}")


def _described(ask: Ask) -> str:
    """What makes it this request and no other."""
    words = [f"{name}={value}" for name, value in sorted({**ask.parameters, **ask.query}.items())]
    body = ask.body.canonical() if isinstance(ask.body, Wire) else ask.body or b""
    return framed_sha256([ask.action.encode(), *(word.encode() for word in words), body])
