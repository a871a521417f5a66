"""Who is signed in: a cookie with a random secret, of which the hash is kept beside the id of an operator's token.

A session is worth what its token is worth: one that is revoked or expires ends all sessions that were opened with it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from coordinator.api.access import Access, AccessError, Caller, UnauthenticatedError
from coordinator.api.recorder import Recorder
from coordinator.audit import Entry
from coordinator.operators import OperatorToken
from coordinator.store.sessions import Session, SessionStore
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.errors import RollcallError
from shared.wire import short

COOKIE = "__Host-rollcall"
"""The prefix has browsers refuse it without Secure, from another path or for a whole domain (RFC 6265bis, 4.1.3.2)."""
SESSION_S = 12 * 3600.0
SECRET_BYTES = 32
MAX_SECRET = 100
SIGN_IN, SIGN_OUT, ENTER = "page sign-in", "page sign-out", "page sign-in by link"


class ForgedError(AccessError):
    """A form that this page did not give to this session, or that another site has sent."""

    code = "forged"
    http_status = 403


@dataclass(frozen=True)
class SignedIn:
    """`csrf` stands in every form of the page."""

    caller: Caller
    token: OperatorToken
    session: Session
    secret: str

    @property
    def csrf(self) -> str:
        return csrf_of(self.secret)


def csrf_of(secret: str) -> str:
    """Follows from the session's secret and does not give it away; nothing has to be kept."""
    return sha256_hex(b"rollcall-form\n" + secret.encode())


def check_origin(request: web.Request) -> None:
    """Raises ForgedError for a form that a page of another site has sent. Browsers say so (Fetch Metadata); one
    that does not still names where it comes from."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    elsewhere = origin is not None and urlsplit(origin).netloc != request.host
    if site not in ("same-origin", "none") or elsewhere:
        raise ForgedError("this form was sent by another site", remedy="open the page itself")


def check_csrf(signed: SignedIn, given: str) -> None:
    if not hmac.compare_digest(given.encode(), signed.csrf.encode()):
        raise ForgedError(
            "this form belongs to another session", remedy="load the page again, then send it"
        )


class Doorkeeper:
    """Lets people in and out, and writes that into the audit log."""

    def __init__(
        self, store: SessionStore, access: Access, recorder: Recorder, clock: Clock
    ) -> None:
        self._store, self._access = store, access
        self._recorder, self._clock = recorder, clock

    async def who(self, request: web.Request) -> SignedIn | None:
        """None for nobody, also when the session's token does not count any more."""
        secret = request.cookies.get(COOKIE, "")
        if not 0 < len(secret) <= MAX_SECRET:
            return None
        session = await self._store.find(_hash(secret), self._clock.now())
        if session is None:
            return None
        caller = await self._access.of_session(session.token, request.remote or "-")
        if caller.operator is None:
            return None
        return SignedIn(caller, caller.operator, session, secret)

    async def sign_in(self, request: web.Request, text: str) -> str:
        """The secret of a new session. Raises UnauthenticatedError, TooManyFailuresError."""
        caller = await self._access.of_text(text, request.remote or "-")
        if caller.operator is None:
            refusal = caller.refusal or UnauthenticatedError("an operator's token is needed here")
            await self._note(caller, SIGN_IN, refusal.http_status, refusal.message)
            raise refusal
        return await self._open(caller, caller.operator, SIGN_IN)

    async def enter(self, request: web.Request, secret: str) -> str:
        """As `sign_in`, by a link that `rollcall open` has made."""
        address = request.remote or "-"
        link = await self._store.use_link(_hash(secret), self._clock.now())
        caller = Caller(address)
        if link is not None:
            caller = await self._access.of_session(link.token, address)
        if caller.operator is None:
            refusal = UnauthenticatedError(
                "this link was used already, or is older than a minute",
                remedy="make another: rollcall open",
            )
            await self._note(caller, ENTER, refusal.http_status, refusal.message)
            raise refusal
        return await self._open(caller, caller.operator, ENTER)

    async def _open(self, caller: Caller, token: OperatorToken, how: str) -> str:
        secret, now = secrets.token_urlsafe(SECRET_BYTES), self._clock.now()
        ends = min(now + SESSION_S, now + SESSION_S if token.expires is None else token.expires)
        await self._store.open(_hash(secret), Session(token.id, now, ends))
        await self._note(caller, how, 200, "")
        return secret

    async def sign_out(self, signed: SignedIn, *, everywhere: bool) -> None:
        if everywhere:
            ended = await self._store.close_all(signed.token.id)
            await self._note(signed.caller, SIGN_OUT, 200, f"everywhere: {ended} sessions")
        else:
            await self._store.close(_hash(signed.secret))
            await self._note(signed.caller, SIGN_OUT, 200, "")

    async def refused(self, signed: SignedIn, action: str, error: RollcallError) -> None:
        """A form that never reached the API."""
        await self._note(signed.caller, action, error.http_status, error.message)

    async def _note(self, caller: Caller, action: str, status: int, detail: str) -> None:
        await self._recorder.record(
            Entry(
                who=caller.who,
                role=caller.role,
                address=caller.address,
                action=short(action, 100),
                subject="",
                status=status,
                detail=short(detail, 300),
            )
        )


def put_cookie(answer: web.StreamResponse, secret: str) -> None:
    """Without an age: it ends with the browser at the latest."""
    answer.set_cookie(COOKIE, secret, httponly=True, secure=True, samesite="Strict", path="/")


def drop_cookie(answer: web.StreamResponse) -> None:
    answer.set_cookie(
        COOKIE, "", max_age=0, httponly=True, secure=True, samesite="Strict", path="/"
    )


def _hash(secret: str) -> str:
    return sha256_hex(secret.encode("utf-8", "surrogateescape"))
