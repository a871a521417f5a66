"""Who may call what: nodes by certificate and roster, operators by token and role."""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from aiohttp import web

from coordinator.fleet import FleetState
from coordinator.operators import OperatorRole, OperatorToken, TokenText
from coordinator.store.operators import Operators
from shared.clock import Clock
from shared.errors import RollcallError, UntrustedError
from shared.http import caller as node_of
from shared.ratelimit import RateLimit
from shared.roster import PeerCertificate

NOBODY = "-"
NODE = "node"
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60.0
_NO_HASH = "0" * 64


class Allows(Enum):
    """Whom a route serves. MEMBER is a node of the roster, or any operator."""

    ANYONE = "anyone"
    NODE = "node"
    MEMBER = "member"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


LEAST_ROLE: Mapping[Allows, OperatorRole] = {
    Allows.MEMBER: OperatorRole.VIEWER,
    Allows.VIEWER: OperatorRole.VIEWER,
    Allows.OPERATOR: OperatorRole.OPERATOR,
    Allows.ADMIN: OperatorRole.ADMIN,
}


class AccessError(RollcallError):
    """A refusal of the caller, not of what was asked. `headers` go out with it."""

    headers: Mapping[str, str] = {}


class UnauthenticatedError(AccessError):
    code = "unauthenticated"
    http_status = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}  # RFC 9110, 15.5.2


class ForbiddenError(AccessError):
    code = "forbidden"
    http_status = 403


class TooManyFailuresError(AccessError):
    """`wait_s` goes out as Retry-After (RFC 9110, 10.2.3)."""

    code = "too-many-failures"
    http_status = 429

    def __init__(self, wait_s: float) -> None:
        seconds = max(1, math.ceil(wait_s))
        super().__init__(
            "too many failed logins from this address", remedy=f"try again in {seconds} s"
        )
        self.headers = {"Retry-After": str(seconds)}


@dataclass(frozen=True)
class Caller:
    """`who` and `role` are proven, or ``-``. `refusal` is why a token that was shown does not count."""

    address: str
    who: str = NOBODY
    role: str = NOBODY
    node: PeerCertificate | None = None
    operator: OperatorToken | None = None
    refusal: AccessError | None = None


class Access:
    def __init__(
        self, fleet: FleetState, operators: Operators, failures: RateLimit, clock: Clock
    ) -> None:
        self._fleet, self._operators = fleet, operators
        self._failures, self._clock = failures, clock

    async def identify(self, request: web.Request) -> Caller:
        """Never raises: what is wrong with a token is kept in the caller's `refusal`. A token counts
        before a certificate."""
        address = request.remote or NOBODY
        header = request.headers.get("Authorization")
        if header is not None:
            return await self._operator(header, address)
        node = node_of(request)
        if node is None:
            return Caller(address)
        return Caller(address, node.name, NODE, node=node)

    async def _operator(self, header: str, address: str) -> Caller:
        """Expired and revoked are said only to the bearer of the right secret.

        The secret is looked at also when the address has failed too often: whoever shares an
        operator's address cannot lock the operator out. That is safe because a secret of 256 bits is
        not found by trying; the limit keeps the noise down.
        """
        scheme, _, text = header.partition(" ")
        return await self.of_text(text if scheme.lower() == "bearer" else "", address)

    async def of_text(self, text: str, address: str) -> Caller:
        """The operator of a token's text."""
        claim = TokenText.parse(text.strip())
        stored = await self._operators.find(claim.id)
        known = _NO_HASH if stored is None else stored.secret_sha256
        if stored is None or not hmac.compare_digest(claim.sha256, known):
            return Caller(address, refusal=self._failure(address, "this token is not known"))
        return await self._bearer(stored.token, address)

    async def of_session(self, token_id: str, address: str) -> Caller:
        """The operator whose token a session of the page was opened with, for as long as that token counts."""
        stored = await self._operators.find(token_id)
        if stored is None:
            return Caller(address, refusal=UnauthenticatedError("this token is not known"))
        return await self._bearer(stored.token, address)

    async def _bearer(self, token: OperatorToken, address: str) -> Caller:
        now = self._clock.now()
        if token.revoked is not None or token.is_expired(now):
            state = "was revoked" if token.revoked is not None else "has expired"
            refusal = self._failure(address, f"operator token {token.id} {state}")
            return Caller(address, token.who, token.role, refusal=refusal)
        await self._operators.used(token, now)
        return Caller(address, token.who, token.role, operator=token)

    def _failure(self, address: str, reason: str) -> AccessError:
        neighbours = network_of(address)
        wait = self._failures.allowed(neighbours)
        if wait > 0:
            return TooManyFailuresError(wait)
        self._failures.failed(neighbours)
        return UnauthenticatedError(
            reason, remedy="ask an admin for one: rollcall operator token create"
        )

    def admit(self, caller: Caller, allows: Allows) -> None:
        """Raises UnauthenticatedError, TooManyFailuresError, ForbiddenError, or UntrustedError for a
        node that is not, or no longer, in the roster."""
        if allows is Allows.ANYONE:
            return
        if caller.refusal is not None:
            raise caller.refusal
        if caller.operator is not None:
            _admit_operator(caller.operator, allows)
        elif caller.node is not None:
            self._admit_node(caller.node, allows)
        else:
            needed = "a node's certificate" if allows is Allows.NODE else "an operator's token"
            raise UnauthenticatedError(
                f"{needed} is needed here",
                remedy="operators name theirs in the CLI's configuration as token_file",
            )

    def _admit_node(self, node: PeerCertificate, allows: Allows) -> None:
        if not self._fleet.roster.admits(node):
            raise UntrustedError(f"{node.name!r} is not in the roster, or was revoked")
        if allows not in (Allows.NODE, Allows.MEMBER):
            raise ForbiddenError("this is for operators; a node's certificate does not count here")


def network_of(address: str) -> str:
    """Whom failures are counted for: an IPv4 address, or the /64 that one IPv6 host has all of."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _admit_operator(token: OperatorToken, allows: Allows) -> None:
    needed = LEAST_ROLE.get(allows)
    if needed is None:
        raise ForbiddenError("this is for nodes; an operator's token does not count here")
    if not token.role.covers(needed):
        raise ForbiddenError(
            f"the role {needed.value} is needed here; {token.who} has {token.role.value}",
            remedy="ask an admin for a token of that role",
        )
