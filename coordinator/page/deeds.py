"""Changes that somebody makes from the page: first what it will do, then a button. Both ask for the role that the
API's route asks for, and the button calls that route."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiohttp import web

from coordinator.page.visit import (
    Drawn,
    Goes,
    Group,
    PageRoute,
    Visit,
    may_be_mended,
    status_of,
)
from shared.errors import RollcallError
from shared.wire import Wire

Answer = Wire | web.StreamResponse


@dataclass(frozen=True)
class Field:
    """`kind` is an input's type, or `select`, `area`, `checks` for several of `options` (value and words)."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    hint: str = ""
    options: tuple[tuple[str, str], ...] = ()
    required: bool = False


REASON = Field("reason", "Why", hint="goes into the history and the audit log")
MUST_REASON = replace(REASON, required=True)


@dataclass(frozen=True)
class Offer:
    """A button that leads to a deed."""

    path: str
    label: str
    action: str
    danger: bool = False


@dataclass(frozen=True)
class Told:
    """What a deed will do, in sentences."""

    title: str
    lines: Sequence[str]
    button: str
    back: str
    fields: Sequence[Field] = ()
    danger: bool = False


class Deed(ABC):
    """`path` is the page's, `action` the API's. A parameter that both have has one name."""

    path: str
    action: str
    active: str = ""

    @abstractmethod
    async def tell(self, visit: Visit) -> Told: ...

    def body(self, _: Visit) -> Wire | bytes | None:
        """What the form asks for. Raises BadInputError."""
        return None

    @abstractmethod
    def after(self, visit: Visit, answer: Answer) -> Goes | Drawn: ...


@dataclass(frozen=True)
class Steps:
    """The two requests of one deed."""

    deed: Deed

    async def show(self, visit: Visit) -> Drawn:
        deed = self.deed
        visit.inside.must(visit.signed.caller, deed.action)
        told = await deed.tell(visit)
        return self._drawn(told)

    async def do(self, visit: Visit) -> Drawn | Goes:
        deed = self.deed
        named = {name: each for name, each in visit.path.items() if f"{{{name}}}" in deed.action}
        try:
            answer = await visit.change(deed.action, named, deed.body)
        except RollcallError as error:
            if not may_be_mended(error):
                raise
            return await self._once_more(visit, error)
        return deed.after(visit, answer)

    async def _once_more(self, visit: Visit, error: RollcallError) -> Drawn:
        """The form as it was sent, with what is wrong with it: what somebody typed is not lost."""
        told = await self.deed.tell(visit)
        sent = [replace(each, value=visit.form.get(each.name, "")) for each in told.fields]
        return self._drawn(replace(told, fields=sent), error)

    def _drawn(self, told: Told, refused: RollcallError | None = None) -> Drawn:
        status = 200 if refused is None else status_of(refused)
        values = {"told": told, "refused": refused}
        return Drawn("confirm.html", told.title, values, active=self.deed.active, status=status)


@dataclass
class DeedPages(Group):
    deeds: Sequence[Deed]
    routes: tuple[PageRoute, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.routes = tuple(route for deed in self.deeds for route in _routes(Steps(deed)))


def _routes(steps: Steps) -> tuple[PageRoute, PageRoute]:
    return (
        PageRoute("GET", steps.deed.path, lambda _, visit: steps.show(visit)),
        PageRoute("POST", steps.deed.path, lambda _, visit: steps.do(visit)),
    )


def chosen(visit: Visit, name: str) -> list[str]:
    """The values of a field that may be there several times."""
    return [each for each in visit.form.get(name, "").replace(" ", ",").split(",") if each]
