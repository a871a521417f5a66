"""The way to the coordinator: always dialled from here, by mutual TLS, never the other way round."""

from __future__ import annotations

import aiohttp

from shared.canonical import MAX_JSON_BYTES
from shared.http import call
from shared.report import SyncAnswer, SyncRequest
from shared.roster import COORDINATOR_HOST

ANSWER_SLACK_S = 10.0


class Coordinator:
    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client, self._url = client, url

    async def get(self, path: str, *, limit: int = MAX_JSON_BYTES) -> bytes:
        return await call(
            self._client,
            "GET",
            self._url + path,
            timeout_s=60,
            max_answer=limit,
            server_hostname=COORDINATOR_HOST,
        )

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        raw = await call(
            self._client,
            "POST",
            f"{self._url}/v1/sync",
            data=request.model_dump_json().encode(),
            timeout_s=request.wait_s + ANSWER_SLACK_S,
            max_answer=16 << 20,
            server_hostname=COORDINATOR_HOST,
        )
        return SyncAnswer.from_bytes(raw, max_bytes=16 << 20)
