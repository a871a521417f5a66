"""Requests to the page and answers of it: who is signed in, forms that are ours, headers, and errors as pages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

import structlog
from aiohttp import web

from coordinator.api.access import UnauthenticatedError
from coordinator.api.inside import Inside
from coordinator.page.assets import Assets
from coordinator.page.menu import Menu, menu_of
from coordinator.page.sessions import (
    Doorkeeper,
    ForgedError,
    SignedIn,
    check_csrf,
    check_origin,
    drop_cookie,
    put_cookie,
)
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit, status_of
from shared.clock import Clock
from shared.errors import BadInputError, NotFoundError, RollcallError
from shared.http import RefusedError, read_body
from shared.wire import short

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
FOREVER = "public, max-age=31536000, immutable"
MAX_FORM = 128 << 10
MAX_FIELDS = 200
MAX_SAID = 200
FORM = "application/x-www-form-urlencoded"
LIVE_HEADER = "HX-Request"
SIGN_IN = "/sign-in"

log = structlog.get_logger()


class Page:
    """Its routes stand in the coordinator's application beside those of the API."""

    def __init__(
        self,
        inside: Inside,
        doorkeeper: Doorkeeper,
        assets: Assets,
        clock: Clock,
        fleet_name: str,
    ) -> None:
        self._inside, self._doorkeeper = inside, doorkeeper
        self._assets, self._clock, self._fleet_name = assets, clock, fleet_name
        self._said: dict[str, str] = {}
        """What was done, for the page that is shown next, by session."""

    def add_to(self, app: web.Application, groups: Sequence[Group]) -> None:
        for group in groups:
            for route in group.routes:
                serve = partial(self._serve, group, route)
                app.router.add_route(route.method, route.path, serve)
        own = (
            ("GET", "/static/{tag}/{name}", self._static),
            ("GET", SIGN_IN, self._show_sign_in),
            ("POST", SIGN_IN, self._sign_in),
            ("GET", "/enter/{secret}", self._enter),
            ("POST", "/sign-out", self._sign_out),
        )
        for method, path, handler in own:
            app.router.add_route(method, path, handler)

    async def _static(self, request: web.Request) -> web.Response:
        asset = self._assets.find(request.match_info["tag"], request.match_info["name"])
        if asset is None:
            raise NotFoundError("there is no such file")
        headers = {"Cache-Control": FOREVER, "Content-Type": asset.type, **HEADERS}
        return web.Response(body=asset.body, headers=headers)

    async def _serve(
        self, group: Group, route: PageRoute, request: web.Request
    ) -> web.StreamResponse:
        signed = await self._doorkeeper.who(request)
        if signed is None:
            return _to_sign_in(request)
        visit = Visit(request, signed, self._inside, self._clock.now())
        try:
            if route.method == "POST":
                visit = await self._formed(visit, route)
            answer = await route.handler(group, visit)
        except RollcallError as error:
            return await self._failed(visit, error)
        except Exception:
            log.exception("page failed", path=request.path, method=request.method)
            return await self._failed(visit, RollcallError("something went wrong here"))
        return await self._answer(visit, answer)

    async def _formed(self, visit: Visit, route: PageRoute) -> Visit:
        """With its form, which was given to this session by a page of ours. Raises ForgedError, BadInputError."""
        try:
            check_origin(visit.request)
            form = await read_form(visit.request)
            check_csrf(visit.signed, form.get("csrf", ""))
        except ForgedError as error:
            await self._doorkeeper.refused(visit.signed, f"POST {route.path}", error)
            raise
        return Visit(visit.request, visit.signed, self._inside, visit.now, form)

    async def _answer(
        self, visit: Visit, answer: Drawn | Goes | web.StreamResponse
    ) -> web.StreamResponse:
        if isinstance(answer, Goes):
            if answer.said:
                self._remember(visit.signed, answer.said)
            return _seen_other(answer.path)
        if isinstance(answer, Drawn):
            return await self._draw(visit, answer)
        return answer

    def _remember(self, signed: SignedIn, said: str) -> None:
        self._said[signed.csrf] = short(said, 1000)
        while len(self._said) > MAX_SAID:
            del self._said[next(iter(self._said))]

    async def _draw(self, visit: Visit, drawn: Drawn) -> web.Response:
        live = LIVE_HEADER in visit.request.headers
        menu = Menu() if live else await menu_of(visit, drawn.active)
        values = {
            **self._common(visit.now),
            "layout": "bare.html" if live else "layout.html",
            "title": drawn.title,
            "menu": menu,
            "signed": visit.signed,
            "csrf": visit.signed.csrf,
            "fresh_key": lambda: secrets.token_urlsafe(16),
            "may": visit.may,
            "here": visit.request.path_qs,
            "said": "" if live else self._said.pop(visit.signed.csrf, ""),
            **drawn.values,
        }
        text = self._assets.draw(drawn.template, values)
        headers = {**HEADERS, "Vary": LIVE_HEADER}
        return web.Response(
            text=text, content_type="text/html", status=drawn.status, headers=headers
        )

    def _common(self, now: float) -> dict[str, Any]:
        return {"fleet_name": self._fleet_name, "now": now, "signed": None, "said": ""}

    async def _failed(self, visit: Visit, error: RollcallError) -> web.StreamResponse:
        """The error as a page; a part that was to be drawn anew is left as it is."""
        status = status_of(error)
        if LIVE_HEADER in visit.request.headers:
            return web.Response(status=status, headers={**HEADERS, "HX-Reswap": "none"})
        code = error.refused_code if isinstance(error, RefusedError) else error.code
        values = {"refused": error, "code": code, "status": status}
        return await self._draw(visit, Drawn("error.html", "Refused", values, status=status))

    async def _show_sign_in(self, request: web.Request) -> web.Response:
        return self._sign_in_page(request.query.get("next", "/"))

    def _sign_in_page(self, then: str, error: RollcallError | None = None) -> web.Response:
        status = 200 if error is None else error.http_status
        values = {**self._common(self._clock.now()), "next": inner_path(then), "error": error}
        text = self._assets.draw("sign-in.html", values)
        answer = web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)
        answer.headers.update(getattr(error, "headers", {}))
        return answer

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        then = "/"
        try:
            check_origin(request)
            form = await read_form(request)
            then = inner_path(form.get("next", "/"))
            secret = await self._doorkeeper.sign_in(request, form.get("token", ""))
        except RollcallError as error:
            return self._sign_in_page(then, error)
        answer = _seen_other(then)
        put_cookie(answer, secret)
        return answer

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        """No redirect: the browser, which may come from elsewhere, would leave a strict cookie out of it."""
        try:
            secret = await self._doorkeeper.enter(request, request.match_info["secret"])
        except UnauthenticatedError as error:
            return self._sign_in_page("/", error)
        values = {**self._common(self._clock.now())}
        headers = {**HEADERS, "Refresh": "0; url=/"}
        text = self._assets.draw("entered.html", values)
        answer = web.Response(text=text, content_type="text/html", headers=headers)
        put_cookie(answer, secret)
        return answer

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        signed = await self._doorkeeper.who(request)
        if signed is not None:
            try:
                check_origin(request)
                form = await read_form(request)
                check_csrf(signed, form.get("csrf", ""))
            except RollcallError as error:
                visit = Visit(request, signed, self._inside, self._clock.now())
                return await self._failed(visit, error)
            everywhere = form.get("everywhere") == "yes"
            await self._doorkeeper.sign_out(signed, everywhere=everywhere)
        answer = _seen_other(SIGN_IN)
        drop_cookie(answer)
        return answer


async def read_form(request: web.Request) -> Mapping[str, str]:
    """Of a name that stands there several times the values with commas between. Raises BadInputError."""
    if request.content_type != FORM:
        raise BadInputError(f"a form is sent as {FORM}")
    raw = await read_body(request, limit=MAX_FORM)
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise BadInputError(f"this form cannot be read: {error}") from error
    form: dict[str, str] = {}
    for name, value in pairs:
        form[name] = f"{form[name]},{value}" if name in form else value
    return form


def inner_path(text: str) -> str:
    """A path of this page; whatever else it is, the first one. Nobody is sent elsewhere by a link to us."""
    plain = text.isascii() and text.isprintable() and "\\" not in text and len(text) <= 2000
    return text if plain and text.startswith("/") and not text.startswith("//") else "/"


def _seen_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, **HEADERS})


def _to_sign_in(request: web.Request) -> web.Response:
    """A stream or a part of a page cannot show a form: its page is to be loaded anew."""
    if LIVE_HEADER in request.headers:
        return web.Response(status=401, headers={"HX-Redirect": SIGN_IN, **HEADERS})
    then = quote(request.path_qs) if request.method == "GET" else "/"
    return _seen_other(f"{SIGN_IN}?next={then}")


async def load_assets() -> Assets:
    return await asyncio.to_thread(Assets)
