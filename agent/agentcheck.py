"""What HAProxy's `agent-check` asks for: one line on each connection, made from memory (docs/decisions/0017)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from shared.clock import Clock
from shared.errors import RollcallError
from shared.messages import Verdict
from shared.readiness import ReadinessDocument

MAX_CONNECTIONS = 64
MAX_SECONDS = 2.0
"""How long a connection may stay after its answer; HAProxy ends it at once."""
MAX_HEARD = 4096
"""Bytes of `agent-send` that are thrown away."""
MAX_REASON = 100
"""HAProxy keeps 127 characters of what an agent says."""
START_S = 60.0

log = structlog.get_logger()


def word(document: ReadinessDocument, weight: int, *, starting: bool) -> str:
    """Never `ready`, `drain` or `maint`: those change the administrative state, which is the operator's, and each
    of them would cancel an operator's `maint`. Weight 0 drains just as well.

    An agent that has just started has not read everything yet. It names its weight alone, which leaves the
    server up or down as it was while no agent answered; what has failed is said at once.
    """
    if document.status is Verdict.GREEN:
        return f"up {weight}%"
    if starting and document.status is Verdict.UNKNOWN:
        return f"{weight}%"
    return f"down #{plain(document.reason) or document.status}"


def plain(reason: str) -> str:
    """One line of ASCII without control characters, that may hold what a gateway printed."""
    words = "".join(each if " " <= each <= "~" else " " for each in reason[: 4 * MAX_REASON])
    return " ".join(words.split())[:MAX_REASON]


class Answers:
    """The line for now. It counts as starting until there was a first verdict, for a minute at most."""

    def __init__(
        self,
        document: Callable[[], ReadinessDocument],
        weight: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._document, self._weight, self._clock = document, weight, clock
        self._start_ends: float | None = clock.monotonic() + START_S

    def now(self) -> str:
        document = self._document()
        over = self._start_ends is not None and self._clock.monotonic() >= self._start_ends
        if over or document.status is not Verdict.UNKNOWN:
            self._start_ends = None
        return word(document, self._weight(), starting=self._start_ends is not None)


@dataclass(frozen=True)
class Asked:
    """Where the answers come from, and who hears that one has arrived: address, line, and when it was made
    (monotonic)."""

    line: Callable[[], str]
    answered: Callable[[str, str, float], None]
    clock: Clock


class _Connection(asyncio.Protocol):
    """It says its line, then waits for the other side's end: a socket that is closed with something unread in it
    sends a reset, and the line could be lost with it."""

    def __init__(self, asked: Asked, crowd: dict[_Connection, None]) -> None:
        self._asked, self._crowd = asked, crowd
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._heard = 0
        self._cut = False
        self._made = 0.0
        self._line = self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        self._transport = transport
        if len(self._crowd) >= MAX_CONNECTIONS:
            next(iter(self._crowd)).cut()
        self._crowd[self] = None
        self._deadline = asyncio.get_running_loop().call_later(MAX_SECONDS, self.cut)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self._made, self._line = self._asked.clock.monotonic(), self._asked.line()
        transport.write(f"{self._line}\n".encode())
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self._heard += len(data)
        if self._heard > MAX_HEARD:
            self.cut()

    def cut(self) -> None:
        """At once, and not counted as told."""
        self._cut = True
        self._crowd.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side has read the line, or else gave up: HAProxy ends both with a reset."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._crowd.pop(self, None)
        if not self._cut and self._line:
            self._asked.answered(self._address, self._line, self._made)


class AgentCheck:
    """The listener. Full, it ends its oldest connection, which has had its answer."""

    def __init__(self, host: str, port: int, asked: Asked) -> None:
        self._host, self.port, self._asked = host, port, asked
        self._crowd: dict[_Connection, None] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises RollcallError when the address cannot be had."""
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self._asked, self._crowd), self._host, self.port
            )
        except OSError as error:
            raise RollcallError(
                f"cannot listen on {self._host}:{self.port}: {error.strerror}",
                remedy="choose another api.agent_check_port in agent.toml, or stop what uses it",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._crowd):
            connection.cut()
        await asyncio.sleep(0)
