"""One request of somebody who is signed in, and what a handler answers with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from coordinator.api.inside import Ask, Inside
from coordinator.page.sessions import SignedIn
from shared.errors import BadInputError, RollcallError
from shared.http import RefusedError
from shared.wire import Wire

W = TypeVar("W", bound=Wire)
MAX_FIELD = 4000


@dataclass(frozen=True)
class Drawn:
    """A template and what it draws. `active` is the entry of the menu that it stands under."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    active: str = ""
    status: int = 200


@dataclass(frozen=True)
class Goes:
    """To another page of ours, with a sentence about what was done."""

    path: str
    said: str = ""


@dataclass(frozen=True)
class Visit:
    request: web.Request
    signed: SignedIn
    inside: Inside
    now: float
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Mapping[str, str]:
        return self.request.match_info

    def asked(self, name: str, default: str = "") -> str:
        """A word of the query, cut to a sane length."""
        return self.request.query.get(name, default)[:MAX_FIELD]

    def typed(self, name: str) -> str:
        """A field of the form, without the space around it."""
        return self.form.get(name, "").strip()

    def ticked(self, name: str) -> bool:
        return self.form.get(name) == "yes"

    def may(self, action: str) -> bool:
        return self.inside.may(self.signed.caller, action)

    async def read(
        self,
        model: type[W],
        action: str,
        parameters: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> W:
        ask = Ask(action, parameters or {}, query or {})
        return await self.inside.read(self.signed.caller, model, ask)

    async def change(
        self,
        action: str,
        parameters: Mapping[str, str],
        body: Callable[[Visit], Wire | bytes | None],
    ) -> Wire | web.StreamResponse:
        """Once, however often the form is sent: it carries a key. Of who may not do this no form is read: the API
        refuses them first, and writes that down."""
        admitted, key = self.may(action), self.form.get("key", "")
        if admitted and not key:
            raise BadInputError("this form has no key", remedy="load the page again")
        asked = body(self) if admitted else None
        ask = Ask(action, parameters, {}, asked, key, self.request)
        return await self.inside.ask(self.signed.caller, ask)


def status_of(error: RollcallError) -> int:
    """Of the answer that says so."""
    return error.status if isinstance(error, RefusedError) else error.http_status


def may_be_mended(error: RollcallError) -> bool:
    """By other words in the same form, or by the same a little later."""
    status = status_of(error)
    return 400 <= status < 500 and status not in (401, 403)


Handler = Callable[[Any, Visit], Awaitable[Drawn | Goes | web.StreamResponse]]


@dataclass(frozen=True)
class PageRoute:
    """`handler` is a method of the group that the route belongs to. A POST is a form: it was checked to be ours."""

    method: str
    path: str
    handler: Handler


class Group:
    """Pages about one thing."""

    routes: tuple[PageRoute, ...] = ()
