"""The way to the coordinator: always dialled from here, by mutual TLS, never the other way round."""

from __future__ import annotations

from urllib.parse import quote

import aiohttp

from agent.dialler import Dialler, open_unverified
from shared.canonical import MAX_JSON_BYTES
from shared.fleet import JoinAnswer
from shared.http import call, missing_as
from shared.metadata import MAX_TARGETS_BYTES
from shared.report import SyncAnswer, SyncRequest
from shared.roster import COORDINATOR_HOST, MAX_ROSTER_BYTES
from shared.wire import Wire

ANSWER_SLACK_S = 10.0
MAX_ANSWER = 2 * MAX_ROSTER_BYTES


async def hand_in(client: aiohttp.ClientSession, url: str, envelope: bytes) -> JoinAnswer:
    """A request that its envelope proves: to join, or for a new certificate."""
    raw = await call(
        client,
        "POST",
        url,
        data=envelope,
        max_answer=MAX_ANSWER,
        server_hostname=COORDINATOR_HOST,
    )
    return JoinAnswer.from_bytes(raw, max_bytes=MAX_ANSWER)


class Coordinator:
    def __init__(self, dialler: Dialler, url: str) -> None:
        self._dialler, self._url = dialler, url

    async def get(self, path: str, *, limit: int = MAX_JSON_BYTES, timeout_s: float = 60) -> bytes:
        return await call(
            self._dialler.session,
            "GET",
            self._url + path,
            timeout_s=timeout_s,
            max_answer=limit,
            server_hostname=COORDINATOR_HOST,
        )

    async def tuf(self, path: str) -> bytes:
        """A file of the TUF repository. Raises NotFoundError when there is none."""
        with missing_as(f"there is no {path} there"):
            return await self.get(f"/tuf/{path}", limit=MAX_TARGETS_BYTES)

    async def tuf_unverified(self, path: str) -> bytes:
        """The same from whoever answers at the coordinator's address."""
        async with open_unverified() as client:
            with missing_as(f"there is no {path} there"):
                return await call(
                    client, "GET", f"{self._url}/tuf/{path}", max_answer=MAX_TARGETS_BYTES
                )

    async def renew(self, envelope: bytes) -> JoinAnswer:
        """Proven by the message key in the envelope, not by the connection."""
        async with self._dialler.anonymous() as client:
            return await hand_in(client, f"{self._url}/v1/renew", envelope)

    async def order(self, order: str, verb: str, asked: Wire, key: str) -> None:
        """Claim, update or complete an order of this node. Raises UnavailableError, and RefusedError with the
        coordinator's reason."""
        await call(
            self._dialler.session,
            "POST",
            f"{self._url}/v1/orders/{quote(order, safe=':')}/{verb}",
            data=asked.canonical(),
            headers={"Idempotency-Key": key},
            server_hostname=COORDINATOR_HOST,
        )

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        raw = await call(
            self._dialler.session,
            "POST",
            f"{self._url}/v1/sync",
            data=request.model_dump_json().encode(),
            timeout_s=request.wait_s + ANSWER_SLACK_S,
            max_answer=MAX_ANSWER,
            server_hostname=COORDINATOR_HOST,
        )
        return SyncAnswer.from_bytes(raw, max_bytes=MAX_ANSWER)
