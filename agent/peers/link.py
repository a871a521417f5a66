"""One kept connection with a peer, on which both sides ask: a WebSocket over mutual TLS.

A frame is a line of JSON and the bytes of a body. `{"ask": 7, "method": "GET", "path": "/v1/peer/events"}` is
answered by `{"to": 7, "status": 200}`; the operations are those of the door for peers, and so are the refusals.
`{"ask": 8}` asks for a sign of life, which is `{"to": 8}`.
Whoever dialled, both may ask. Its end is news at once: a process that is killed closes its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Protocol

import aiohttp
import structlog
from pydantic import Field

from shared.canonical import canonical_json
from shared.errors import BadInputError, RollcallError, UnavailableError
from shared.http import RefusedError, problem_of, refusal_of
from shared.metadata import MAX_TARGETS_BYTES
from shared.wire import MAX_INTEGER, Wire

log = structlog.get_logger()

MAX_FRAME = MAX_TARGETS_BYTES + (64 << 10)
MAX_ASKED = 64
"""Questions of a peer that are worked on at one time; the reading of more waits (backpressure)."""
HEARTBEAT_S = 10.0
SEND_TIMEOUT_S = 10.0
DRAIN_S = 5.0


class EndedError(UnavailableError):
    """The connection ended before the answer: whether the question arrived is not known."""


Number = Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class Head(Wire):
    """Of a question (`ask`) or of an answer (`to`)."""

    ask: Number | None = None
    method: Annotated[str, Field(max_length=8)] = ""
    path: Annotated[str, Field(max_length=512)] = ""
    params: Annotated[dict[str, str], Field(max_length=8)] = {}
    to: Number | None = None
    status: Annotated[int, Field(ge=100, le=599)] = 200


class Socket(Protocol):
    """What client and server ends of aiohttp have in common."""

    @property
    def closed(self) -> bool: ...
    async def receive(self) -> aiohttp.WSMessage: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self) -> bool: ...


Answer = Callable[[str, str, Mapping[str, str], bytes], Awaitable[bytes]]
"""Method, path, parameters, body to the body of an answer. Raises RollcallError for a refusal."""


class Link:
    """`serve` reads until the connection ends; `ask` works meanwhile. `dialled_by` is a node's name."""

    def __init__(self, peer: str, socket: Socket, answer: Answer, *, dialled_by: str) -> None:
        self.peer, self.dialled_by = peer, dialled_by
        self._socket, self._answer = socket, answer
        self._number = 0
        self._asked: dict[int, asyncio.Future[tuple[Head, bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_ASKED)
        self._sending = asyncio.Lock()
        self._heard = asyncio.get_running_loop().time()
        self.retiring = False
        """Nothing new is asked on it: another connection with this peer has taken over."""

    @property
    def usable(self) -> bool:
        return not (self.retiring or self._socket.closed)

    def quiet_for(self) -> float:
        """Seconds since something came from the peer."""
        return asyncio.get_running_loop().time() - self._heard

    async def ping(self, timeout_s: float) -> None:
        """Whether the peer is there, in as few bytes as a question has. One that does not know this form refuses,
        which is an answer. Raises UnavailableError."""
        with contextlib.suppress(RefusedError):
            await self.ask("", "", timeout_s=timeout_s)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes = b"",
        timeout_s: float,
    ) -> bytes:
        """Raises UnavailableError when the connection ends or nothing comes in time, RefusedError for a no."""
        self._number += 1
        number = self._number
        head = Head(ask=number, method=method, path=path, params=dict(params or {}))
        future: asyncio.Future[tuple[Head, bytes]]
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(head, data)
                found, body = await future
        except TimeoutError:
            raise UnavailableError(f"no answer from {self.peer} within {timeout_s:g} s") from None
        finally:
            self._asked.pop(number, None)
        if found.status >= 300:
            raise refusal_of(found.status, body)
        return body

    async def _send(self, head: Head, body: bytes) -> None:
        """Waits while the peer does not take what was sent before. Raises UnavailableError."""
        frame = head.model_dump_json(exclude_defaults=True).encode() + b"\n" + body
        try:
            async with self._sending:
                await self._socket.send_bytes(frame)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise EndedError(f"the connection with {self.peer} has ended") from error

    async def serve(self) -> None:
        """Until either side ends it."""
        try:
            while (message := await self._socket.receive()).type is aiohttp.WSMsgType.BINARY:
                self._heard = asyncio.get_running_loop().time()
                await self._take(message.data)
        except BadInputError as error:
            log.warning("link ended", peer=self.peer, reason=str(error))
        except ConnectionError as error:
            """Reading answers pings, which fails where the peer has gone meanwhile."""
            log.debug("link ended", peer=self.peer, reason=str(error))
        finally:
            await self.end()

    async def _take(self, frame: bytes) -> None:
        line, found, body = frame.partition(b"\n")
        if not found:
            raise BadInputError(f"a frame of {self.peer} has no head")
        head = Head.from_bytes(line)
        if head.to is not None:
            waiting = self._asked.get(head.to)
            if waiting is not None and not waiting.done():
                waiting.set_result((head, body))
        elif head.ask is not None:
            await self._room.acquire()
            task = asyncio.get_running_loop().create_task(self._reply(head, body))
            self._answering.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._room.release()

    async def _reply(self, head: Head, body: bytes) -> None:
        answer, status = b"", 200
        try:
            if head.path:
                answer = await self._answer(head.method, head.path, head.params, body)
        except RollcallError as error:
            answer, status = canonical_json(problem_of(error)), error.http_status
        except Exception:
            log.exception("request failed", peer=self.peer, path=head.path)
            answer, status = b"{}", 500
        with contextlib.suppress(UnavailableError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(Head(to=head.ask, status=status), answer)

    async def retire(self) -> None:
        """What was asked is still answered; then it ends."""
        self.retiring = True
        unanswered: list[asyncio.Future[Any]] = [*self._asked.values(), *self._answering]
        if unanswered:
            await asyncio.wait(unanswered, timeout=DRAIN_S)
        await self.end()

    async def end(self) -> None:
        """At once; whoever waits for an answer is told."""
        for future in self._asked.values():
            if not future.done():
                future.set_exception(EndedError(f"the connection with {self.peer} has ended"))
        for task in list(self._answering):
            task.cancel()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                await self._socket.close()
