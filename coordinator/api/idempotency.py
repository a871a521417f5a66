"""`Idempotency-Key`: a request that changes something is carried out once, however often it is sent.

The first answer is kept for a day for each caller and key and given again, refusals of the handler included.
Another request under the same key is a 422, as the IETF draft has it: a 409 would read as if waiting helped.
Of two at once the second waits for the first one's answer, and gets a 409 when that takes too long.

An answer is kept in the very transaction that makes the change (coordinator/store/settling.py). A request that was cut
short by a crash of the coordinator has therefore changed nothing, or it is answered; the few whose change is no single
transaction change nothing more when they are carried out again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.sealing import Sealer
from coordinator.store.replays import KeptAnswer, ReplayQueries, keep_answer
from shared.canonical import framed_sha256
from shared.clock import Clock
from shared.errors import BadInputError, ConflictError, RollcallError
from shared.failpoint import fail_point

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = r"[!-~]{1,200}"
WAIT_S = 20.0
MAX_BODY = 4 << 20
NO_CONTENT = 204


class ReusedKeyError(RollcallError):
    """One key for two different requests."""

    code = "key-reused"
    http_status = 422


class InFlightError(ConflictError):
    """The first request under this key is not answered yet."""

    code = "in-flight"


@dataclass(frozen=True)
class Asked:
    """`request` is a hash of all that makes it this request and no other. `secret`: its good answer has a secret in
    it, which the database keeps sealed."""

    caller: str
    key: str
    request: str
    secret: bool = False

    @property
    def id(self) -> str:
        return framed_sha256([self.caller.encode(), self.key.encode()])


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


def read_key(request: web.Request) -> str | None:
    """Raises BadInputError for one that is empty, too long, not of printable ASCII, or said twice."""
    said = request.headers.getall(HEADER, [])
    if not said:
        return None
    if len(said) > 1 or re.fullmatch(KEY, said[0]) is None:
        raise BadInputError(
            f"{HEADER} is one word of at most 200 printable ASCII characters",
            remedy="a new UUID for each change serves well",
        )
    return said[0]


def describe_request(request: web.Request, body: bytes) -> str:
    """The hash of method, path, query, precondition and body."""
    match = request.headers.get("If-Match", "")
    words = (request.method, request.path_qs, match)
    return framed_sha256([*(word.encode("utf-8", "surrogateescape") for word in words), body])


Perform = Callable[[], Awaitable[tuple[web.StreamResponse, bool]]]
"""Returns the answer, and whether it was kept with what it says was made."""
Note = Callable[[AsyncConnection, int], Awaitable[None]]
"""Writes the audit log's row about an answer of this status."""


class Replays:
    """One for the API."""

    def __init__(self, queries: ReplayQueries, sealer: Sealer, clock: Clock) -> None:
        self._queries, self._sealer, self._clock = queries, sealer, clock
        self._turns: dict[str, _Turn] = {}

    async def once(
        self, asked: Asked, perform: Perform, note: Note
    ) -> tuple[web.StreamResponse, bool]:
        """The answer, and whether it is that of an earlier request. Raises ReusedKeyError, InFlightError,
        SealedError."""
        async with self._turn(asked.id):
            before = await self._queries.find(asked.id, self._clock.now())
            if before is not None and before.request != asked.request:
                raise ReusedKeyError(
                    "this key came with another request before",
                    remedy=f"use a new {HEADER} for each change",
                )
            if before is not None:
                return replayed(self._opened(asked, before.answer)), True
            answer, is_kept = await perform()
            if not is_kept:
                await self._keep_late(asked, answer, note)
            return answer, False

    def _opened(self, asked: Asked, kept: KeptAnswer) -> KeptAnswer:
        if not asked.secret or kept.status >= 300:
            return kept
        return replace(kept, body=self._sealer.open(kept.body, asked.id))

    async def _keep_late(self, asked: Asked, answer: web.StreamResponse, note: Note) -> None:
        """Of a request that changed nothing, or whose second run would change nothing more. What failed here, or
        cannot be given again, may be tried again."""
        body = answer.body if isinstance(answer, web.Response) else None
        kept = b"" if body is None and answer.status == NO_CONTENT else body
        fail_point("answer.keeping")
        async with self._queries.write() as db:
            if answer.status < 500 and isinstance(kept, bytes) and len(kept) <= MAX_BODY:
                etag = answer.headers.get("ETag")
                await self.keep(
                    db, asked, KeptAnswer(answer.status, answer.content_type, etag, kept)
                )
            await note(db, answer.status)
        fail_point("answer.kept")

    async def keep(self, db: AsyncConnection, asked: Asked, answer: KeptAnswer) -> None:
        """As part of this transaction."""
        if asked.secret and answer.status < 300:
            answer = replace(answer, body=self._sealer.seal(answer.body, asked.id))
        now = self._clock.now()
        await keep_answer(db, asked.id, asked.caller, asked.request, answer, now)

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    await turn.lock.acquire()
            except TimeoutError:
                raise InFlightError(
                    "the first request under this key is not answered yet",
                    remedy="send it again in a while, under the same key",
                ) from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]


def replayed(kept: KeptAnswer) -> web.Response:
    """The first answer once more, and marked as that."""
    headers = {REPLAYED: "true"} | ({} if kept.etag is None else {"ETag": kept.etag})
    answer = web.Response(status=kept.status, body=kept.body, headers=headers)
    answer.content_type = kept.type
    if kept.type == "application/json":
        answer.charset = "utf-8"
    return answer
