"""`/v1/page-links`: a link that signs its caller in to the admin page, once (`rollcall open`)."""

from __future__ import annotations

import secrets

from coordinator.api.access import Allows, ForbiddenError
from coordinator.api.routes import Call, Resource, Route
from coordinator.store.sessions import Session, SessionStore
from coordinator.store.settling import answered_by
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.wire import Wire

LINK_S = 60.0
"""A link is for the browser that is being started."""


class PageLink(Wire):
    """`path` belongs behind the address of the coordinator. It works once, until `expires`."""

    path: str
    expires: float


class PageLinksApi(Resource):
    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def create(self, call: Call) -> PageLink:
        operator = call.caller.operator
        if operator is None:
            raise ForbiddenError("this is for operators")
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        link = Session(operator.id, now, now + LINK_S)
        call.subject, call.detail = operator.who, "a link to the admin page"
        answer = PageLink(path=f"/enter/{secret}", expires=link.expires)
        answered_by(answer)
        await self._store.add_link(sha256_hex(secret.encode()), link)
        return answer

    routes = (
        Route(
            "POST",
            "/v1/page-links",
            create,
            Allows.VIEWER,
            "Make a link to the admin page that signs its caller in, once, within a minute.",
            answer=PageLink,
            success=(201,),
            secret=True,
        ),
    )
