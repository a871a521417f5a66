"""Comparing notes: whoever was away learns on return, through whoever it reaches first (DESIGN.md, 6)."""

from __future__ import annotations

import structlog

from agent.peers.mesh import MAX_EVENTS, Mesh
from agent.peers.transport import Transport
from shared.canonical import parse_json
from shared.clock import Clock
from shared.errors import BadInputError, RollcallError

log = structlog.get_logger()

MAX_EVENTS_BYTES = 4 << 20
FIRST_TRY_S = 1.0


class Notes:
    """Asks each peer for its open reds and recent clears, every `every_s` seconds."""

    def __init__(self, mesh: Mesh, transport: Transport, clock: Clock, *, every_s: float) -> None:
        self._mesh, self._transport, self._clock = mesh, transport, clock
        self._every_s = every_s

    async def compare(self, peer: str) -> None:
        """With one peer, for ever."""
        while True:
            try:
                raw = await self._transport.ask(
                    peer, "GET", "/v1/peer/events", max_answer=MAX_EVENTS_BYTES
                )
                await self._learn(raw)
                pause = self._every_s
            except (RollcallError, OSError) as error:
                log.debug("notes not compared", peer=peer, reason=str(error))
                pause = min(FIRST_TRY_S, self._every_s)
            await self._clock.sleep(pause)

    async def _learn(self, raw: bytes) -> None:
        value = parse_json(raw, max_bytes=MAX_EVENTS_BYTES, max_depth=4)
        if not isinstance(value, list):
            raise BadInputError("a peer's events are not a list")
        for each in value[: 2 * MAX_EVENTS]:
            await self._mesh.learn(str(each).encode())
