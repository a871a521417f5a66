"""`/v1/fleet`, `/v1/node-tokens`, `/v1/join`: how a node becomes one."""

from __future__ import annotations

import datetime
import secrets
from typing import Annotated

from pydantic import Field

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.ca import key_of_request
from coordinator.fleet import FleetState
from coordinator.home import Keys
from coordinator.store.queries import Queries
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError
from shared.fleet import FleetDocument, JoinAnswer, JoinRequest, JoinToken
from shared.roster import Role
from shared.wire import Wire, is_node_name

RESERVED = {"coordinator"}


class TokenRequest(Wire):
    ttl_s: Annotated[float, Field(gt=0, le=7 * 86400)] = 3600


class TokenAnswer(Wire):
    token: str
    expires: float


class Joining(Resource):
    def __init__(
        self, queries: Queries, fleet: FleetState, keys: Keys, url: str, clock: Clock
    ) -> None:
        self._queries, self._fleet, self._keys = queries, fleet, keys
        self._url, self._clock = url, clock

    async def document(self, _: Call) -> FleetDocument:
        return self._keys.fleet

    async def token(self, call: Call) -> TokenAnswer:
        asked = call.wire(TokenRequest)
        secret = secrets.token_urlsafe(32)
        expires = self._clock.now() + asked.ttl_s
        await self._queries.forget_tokens(self._clock.now())
        await self._queries.add_token(sha256_hex(secret.encode()), expires)
        call.detail = f"good for {asked.ttl_s:.0f} s"
        token = JoinToken(url=self._url, secret=secret, fleet_sha256=self._keys.fleet.sha256)
        return TokenAnswer(token=token.encode(), expires=expires)

    async def join(self, call: Call) -> JoinAnswer:
        asked = call.wire(JoinRequest)
        call.subject = asked.name
        if not is_node_name(asked.name) or asked.name in RESERVED:
            raise BadInputError(f"{asked.name!r} is no node name")
        if asked.role not in {role.value for role in Role}:
            raise BadInputError(f"{asked.role!r} is no role; there are canary, stable, witness")
        key = key_of_request(asked.csr_pem)
        now = self._clock.now()
        await self._queries.join(
            sha256_hex(asked.secret.encode()), asked.name, Role(asked.role), asked.message_key, now
        )
        await self._fleet.publish_roster()
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        return JoinAnswer(
            certificate_pem=self._keys.authority.issue(asked.name, key, moment),
            roster=self._fleet.roster_raw,
        )

    routes = (
        Route(
            "GET",
            "/v1/fleet",
            document,
            Allows.ANYONE,
            "The fleet document; a join token carries its hash.",
            answer=FleetDocument,
        ),
        Route(
            "POST",
            "/v1/node-tokens",
            token,
            Allows.OPERATOR,
            "Make a token with which one node can join.",
            body=TokenRequest,
            answer=TokenAnswer,
            success=(201,),
        ),
        Route(
            "POST",
            "/v1/join",
            join,
            Allows.ANYONE,
            "Become a node, with a token's secret.",
            body=JoinRequest,
            answer=JoinAnswer,
            success=(201,),
            refusals=(403, 409),
        ),
    )
