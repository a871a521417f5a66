"""`/v1/fleet`, `/v1/node-tokens`, `/v1/join`: how a node becomes one."""

from __future__ import annotations

import datetime
import secrets
from typing import Annotated

from aiohttp import web
from pydantic import Field

from coordinator.api.access import Access
from coordinator.ca import key_of_request
from coordinator.fleet import FleetState
from coordinator.home import Keys
from coordinator.store.queries import Queries
from shared.canonical import sha256_hex
from shared.clock import Clock
from shared.errors import BadInputError
from shared.fleet import JoinAnswer, JoinRequest, JoinToken
from shared.http import read_wire, wire_response
from shared.roster import Role
from shared.wire import Wire, is_node_name

RESERVED = {"coordinator"}


class TokenRequest(Wire):
    ttl_s: Annotated[float, Field(gt=0, le=7 * 86400)] = 3600


class Joining:
    def __init__(
        self, queries: Queries, fleet: FleetState, keys: Keys, url: str, clock: Clock
    ) -> None:
        self._queries, self._fleet, self._keys = queries, fleet, keys
        self._url, self._clock = url, clock

    def routes(self, app: web.Application, access: Access) -> None:
        app.router.add_get("/v1/fleet", self.document)
        app.router.add_post("/v1/node-tokens", access.operators_only(self.token))
        app.router.add_post("/v1/join", self.join)

    async def document(self, _: web.Request) -> web.Response:
        return wire_response(self._keys.fleet)

    async def token(self, request: web.Request) -> web.Response:
        asked = await read_wire(request, TokenRequest)
        secret = secrets.token_urlsafe(32)
        expires = self._clock.now() + asked.ttl_s
        await self._queries.forget_tokens(self._clock.now())
        await self._queries.add_token(sha256_hex(secret.encode()), expires)
        token = JoinToken(url=self._url, secret=secret, fleet_sha256=self._keys.fleet.sha256)
        return web.json_response({"token": token.encode(), "expires": expires}, status=201)

    async def join(self, request: web.Request) -> web.Response:
        asked = await read_wire(request, JoinRequest)
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
        answer = JoinAnswer(
            certificate_pem=self._keys.authority.issue(asked.name, key, moment),
            roster=self._fleet.roster_raw,
        )
        return wire_response(answer, status=201)
