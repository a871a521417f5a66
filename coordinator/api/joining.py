"""`/v1/node-tokens`, `/v1/join`, `/v1/renew`, `/v1/nodes/{name}/revoke`: who is a node, and until when."""

from __future__ import annotations

import datetime
import secrets
from typing import Annotated, Self

from pydantic import Field, model_validator

from coordinator.api.access import Allows
from coordinator.api.routes import ENVELOPE, Call, Resource, Route
from coordinator.ca import key_of_request
from coordinator.fleet import FleetState
from coordinator.home import KeyRing
from coordinator.repository import Repository
from coordinator.store.nodes import NodeQueries, TokenTerms
from coordinator.store.settling import answered_by
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.envelope import RENEWAL, peek
from shared.errors import BadInputError, UntrustedError
from shared.fleet import (
    JoinAnswer,
    JoinToken,
    RenewalRequest,
    SiteName,
    open_join,
    open_renewal,
)
from shared.nodes import Revoked
from shared.roster import Role
from shared.wire import NODE_NAME, NodeName, Reason, Wire

RESERVED = {"coordinator"}
ENVELOPE_BYTES = 64 << 10
STRANGER_S = 5.0
"""For the body of somebody who has proven nothing yet."""


class TokenRequest(Wire):
    """`rejoin` is for a node that was installed anew: its name stays, its keys change."""

    ttl_s: Annotated[float, Field(gt=0, le=7 * 86400)] = 3600
    name: NodeName | None = None
    role: Role | None = None
    site: SiteName | None = None
    rejoin: bool = False

    @model_validator(mode="after")
    def _names_who_returns(self) -> Self:
        if self.rejoin and self.name is None:
            raise ValueError("a token for a return names the node")
        return self


class TokenAnswer(Wire):
    token: str
    expires: float


class Revocation(Wire):
    reason: Reason = ""


class Joining(Resource):
    def __init__(
        self,
        nodes: NodeQueries,
        fleet: FleetState,
        ring: KeyRing,
        repository: Repository,
        url: str,
        clock: Clock,
    ) -> None:
        self._nodes, self._fleet, self._ring, self._repository = nodes, fleet, ring, repository
        self._url, self._clock = url, clock

    async def token(self, call: Call) -> TokenAnswer:
        asked = call.wire(TokenRequest)
        if asked.name in RESERVED:
            raise BadInputError(f"{asked.name!r} is a reserved name")
        root_version, root_sha256 = self._repository.root_to_trust()
        secret, now = secrets.token_urlsafe(32), self._clock.now()
        terms = TokenTerms(now + asked.ttl_s, asked.name, asked.role, asked.site, asked.rejoin)
        call.subject = asked.name or "any node"
        call.detail = f"good for {asked.ttl_s:.0f} s"
        token = JoinToken(
            url=self._url,
            secret=secret,
            root_version=root_version,
            root_sha256=root_sha256,
            ca_sha256=sha256_hex(self._ring.current.authority.pem.encode()),
        )
        answer = TokenAnswer(token=token.encode(), expires=terms.expires)
        answered_by(answer)
        await self._nodes.add_token(sha256_hex(secret.encode()), terms, now)
        return answer

    async def join(self, call: Call) -> JoinAnswer:
        asked = open_join(call.raw)
        call.subject = asked.name
        if asked.name in RESERVED:
            raise BadInputError(f"{asked.name!r} is a reserved name")
        if asked.role is not None and asked.role not in {role.value for role in Role}:
            raise BadInputError(f"{asked.role!r} is no role; there are canary, stable, witness")
        self._repository.must_fleet()
        key = key_of_request(asked.csr_pem)
        secret_sha256 = sha256_hex(asked.secret.encode())
        call.replayed = not await self._nodes.join(secret_sha256, asked, self._clock.now())
        await self._fleet.publish_roster()
        return JoinAnswer(
            certificate_pem=self._ring.current.authority.issue(asked.name, key, self._moment()),
            roster=self._fleet.roster_raw,
        )

    async def renew(self, call: Call) -> JoinAnswer:
        """Authenticated by the node's message key: its certificate may have lapsed, or been issued by an
        authority that is no more."""
        claimed = RenewalRequest.from_bytes(peek(call.raw, RENEWAL).payload)
        call.subject = claimed.node
        asked = open_renewal(call.raw, self._fleet.roster.key_of(claimed.node))
        if asked.fleet != self._ring.current.fleet:
            raise UntrustedError("a renewal of another fleet")
        key = key_of_request(asked.csr_pem)
        if asked.message_key != self._fleet.roster.key_of(asked.node):
            call.detail = f"message key is {asked.message_key.keyid[:16]} now"
            await self._nodes.set_key(asked.node, asked.message_key)
            await self._fleet.publish_roster()
        return JoinAnswer(
            certificate_pem=self._ring.current.authority.issue(asked.node, key, self._moment()),
            roster=self._fleet.roster_raw,
        )

    async def revoke(self, call: Call) -> Revoked:
        name = call.parameters["name"]
        call.detail = call.wire(Revocation).reason
        return await self._fleet.revoke(name)

    def _moment(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock.now(), datetime.UTC)

    routes = (
        Route(
            "POST",
            "/v1/node-tokens",
            token,
            Allows.OPERATOR,
            "Make a token with which one node can join.",
            body=TokenRequest,
            answer=TokenAnswer,
            success=(201,),
            secret=True,
            refusals=(404, 409),
        ),
        Route(
            "POST",
            "/v1/join",
            join,
            Allows.ANYONE,
            "Become a node: a join request with a token's secret, in an envelope (DSSE) that the "
            "node's new message key has signed.",
            body=ENVELOPE,
            answer=JoinAnswer,
            success=(201,),
            refusals=(403, 409),
            limit=ENVELOPE_BYTES,
            deadline_s=STRANGER_S,
        ),
        Route(
            "POST",
            "/v1/renew",
            renew,
            Allows.ANYONE,
            "A new certificate for a node, in an envelope that its message key has signed.",
            body=ENVELOPE,
            answer=JoinAnswer,
            refusals=(403, 409),
            limit=ENVELOPE_BYTES,
            deadline_s=STRANGER_S,
        ),
        Route(
            "POST",
            "/v1/nodes/{name}/revoke",
            revoke,
            Allows.OPERATOR,
            "Lock a node out; peers tell each other.",
            parameters={"name": NODE_NAME},
            body=Revocation,
            answer=Revoked,
            refusals=(404,),
        ),
    )
