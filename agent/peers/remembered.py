"""Where peers answered last, kept over a restart: a node that comes up in a network without multicast, and without
its coordinator, tries there first. Losing it costs nothing but time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field, StringConstraints

from agent.peers.directory import KEPT_GOOD, MAX_PEERS, Directory, Found, Hint
from shared.clock import Clock
from shared.durable import read_secret, write_durable
from shared.errors import RollcallError
from shared.wire import NodeName, Wire

log = structlog.get_logger()

SAVE_EVERY_S = 10.0
MAX_BYTES = 1 << 20


class Place(Wire):
    host: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65535)]


class Remembered(Wire):
    """By peer: where it answered, the last first."""

    places: Annotated[
        dict[NodeName, Annotated[list[Place], Field(max_length=KEPT_GOOD)]],
        Field(max_length=MAX_PEERS),
    ] = {}
    at: dict[NodeName, float] = {}
    """When it was reached last, on the wall clock; as old as the file where it is reached now."""


class Memory:
    """`load` once before anything is dialled; `run` writes what changed, for ever."""

    def __init__(
        self, path: Path, directory: Directory, peers: Callable[[], list[str]], clock: Clock
    ) -> None:
        self._path, self._directory, self._peers, self._clock = path, directory, peers, clock
        self._kept: dict[str, list[Place]] | None = None

    async def load(self) -> None:
        """What cannot be read is forgotten, and written anew in time."""
        try:
            found = await asyncio.to_thread(_read, self._path)
        except (RollcallError, OSError) as error:
            log.warning("remembered addresses are not used", reason=str(error))
            return
        if found is None:
            return
        self._kept = found.places
        wanted = set(self._peers())
        for name, places in found.places.items():
            if name in wanted:
                hints = [Hint(each.host, each.port, Found.REMEMBERED) for each in places]
                self._directory.recall(name, hints, found.at.get(name, 0.0))

    async def run(self) -> None:
        while True:
            await self._clock.sleep(SAVE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        """When there is another address than the file has; the times go along."""
        places = self._places()
        if places == self._kept or not (places or self._kept):
            return
        last = {name: self._directory.last_reached(name) for name in places}
        document = Remembered(
            places=places, at={name: at for name, at in last.items() if at is not None}
        )
        try:
            await asyncio.to_thread(write_durable, self._path, document.canonical())
        except OSError as error:
            log.warning("addresses are not remembered", reason=str(error))
        else:
            self._kept = places

    def _places(self) -> dict[str, list[Place]]:
        """Of the peers of today's roster; of one that was not reached since the start, what was kept."""
        found = {}
        for name in self._peers()[:MAX_PEERS]:
            good = [Place(host=each.host, port=each.port) for each in self._directory.good(name)]
            if good := good or (self._kept or {}).get(name, []):
                found[name] = good
        return found


def _read(path: Path) -> Remembered | None:
    if not path.exists():
        return None
    return Remembered.from_bytes(read_secret(path, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
