"""Our side of `rollout` with nodes that are played: a real coordinator, and everything that a node says to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.cli.client import Client
from scripts.benchmarks.crowding import names
from scripts.benchmarks.moving import PACE, Moved, move_to
from scripts.benchmarks.players import Player
from scripts.minifleet.fleet import MiniFleet, together
from scripts.minifleet.workspace import Workspace
from shared.clock import SystemClock
from shared.errors import RollcallError
from shared.fleet import JoinToken
from shared.messages import Proven

WITNESSES = 3
JOINING = 4
"""At a time."""
SETTLE_S = 2.0
"""For the first long poll of each to begin."""


class Stand:
    def __init__(self, fleet: MiniFleet, releases: dict[str, str]) -> None:
        self._fleet, self._releases = fleet, releases
        self.players: dict[str, Player] = {}
        self._playing: list[asyncio.Task[None]] = []

    async def join(self, wanted: list[str]) -> None:
        turns, clock, client = asyncio.Semaphore(JOINING), SystemClock(), Client(self._fleet.config)
        cores = {release: version for version, release in self._releases.items()}

        async def enter(name: str) -> None:
            async with turns:
                made = await client.ask("POST", "/v1/node-tokens", b'{"ttl_s": 600}')
                token = JoinToken.decode(json.loads(made)["token"])
                folder = self._fleet.root / "players"
                self.players[name] = await Player.enter(
                    folder, name, token, cores, clock, self._ask
                )

        await together(*(enter(name) for name in wanted))
        self._playing = [asyncio.create_task(each.run()) for each in self.players.values()]
        await asyncio.sleep(SETTLE_S)

    async def _ask(self, subject: str, claim: Proven) -> None:
        """Every witness signs."""
        signers = [name for name in sorted(self.players)[:WITNESSES] if name != subject]
        await together(*(self.players[name].attest(subject, claim) for name in signers))

    async def move(self, version: str) -> Moved:
        """Raises what a player has met."""
        moving = asyncio.create_task(move_to(self._fleet, self._releases[version]))
        try:
            await asyncio.wait({moving, *self._playing}, return_when=asyncio.FIRST_COMPLETED)
            for player in self._playing:
                if player.done():
                    player.result()
            rollout, total = await moving
        finally:
            moving.cancel()
        if len(rollout.nodes) != len(self.players):
            raise RollcallError(f"{len(rollout.nodes)} of {len(self.players)} nodes have moved")
        return Moved(total)

    async def close(self) -> None:
        for each in self._playing:
            each.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)
        for player in self.players.values():
            await player.close()


@asynccontextmanager
async def playing(size: int, versions: list[str]) -> AsyncIterator[Stand]:
    """Nodes that have joined and been heard, and a release of each version."""
    fleet = MiniFleet(Workspace(), PACE, standin=True, mdns=False, roles=())
    try:
        await fleet.open()
        wanted = names(size)
        out = str(fleet.root / "witnesses.bundle")
        first = wanted[:WITNESSES]
        await fleet.rollcall("keys", "witnesses", *first, *fleet.desk(), "--yes", "--out", out)
        stand = Stand(fleet, {version: await fleet.freeze(version) for version in versions})
        try:
            await stand.join(wanted)
            yield stand
        finally:
            await stand.close()
    finally:
        await fleet.close()
