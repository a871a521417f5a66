"""What keeps this node from moving: peers' reds, and a freeze by hand that outlives the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field

from agent.peers.mesh import Mesh
from shared.clock import Clock
from shared.durable import write_durable
from shared.errors import BadInputError, ConflictError
from shared.freezing import MAX_FREEZES, WHY_CHARS, By, Freeze, Who, Why
from shared.messages import Message, Red
from shared.wire import Wire, short

log = structlog.get_logger()

FILE = "freeze.json"
KEPT_PAST = 32


class Lifted(Wire):
    """A freeze by hand that is over."""

    freeze: Freeze
    who: Who
    why: Why
    at: float


class Kept(Wire):
    """The file: what holds now, and who froze and lifted before, newest last."""

    now: Freeze | None = None
    past: Annotated[list[Lifted], Field(max_length=KEPT_PAST)] = []


class FreezeList(Wire):
    """What the door shows."""

    now: Annotated[list[Freeze], Field(max_length=MAX_FREEZES)]
    past: Annotated[list[Lifted], Field(max_length=KEPT_PAST)]


class HandFreeze:
    """An administrator's word: durable before it counts, and before it counts no more. A file that cannot be
    read freezes: what an administrator has said is then unknown."""

    def __init__(self, home: Path, node: str, clock: Clock, on_change: Callable[[], None]) -> None:
        self._path, self._node, self._clock = home / FILE, node, clock
        self._on_change = on_change
        self._changing = asyncio.Lock()
        self._kept = self._read()

    def _read(self) -> Kept:
        try:
            return Kept.from_bytes(self._path.read_bytes())
        except FileNotFoundError:
            return Kept()
        except BadInputError as error:
            log.error("frozen, because nobody knows", file=str(self._path), reason=str(error))
            why = short(f"{FILE} cannot be read: {error}", WHY_CHARS)
            return Kept(now=self._make("rollcall-agent", why))

    def _make(self, who: str, why: str) -> Freeze:
        return Freeze(by=By.HAND, who=who, why=why, since=self._clock.now(), node=self._node)

    @property
    def now(self) -> Freeze | None:
        return self._kept.now

    @property
    def past(self) -> list[Lifted]:
        return self._kept.past

    async def freeze(self, who: str, why: str) -> None:
        """Raises ConflictError while one holds: whoever set that one has a reason as well."""
        async with self._changing:
            if (now := self.now) is not None:
                raise ConflictError(
                    f"{now.who} froze this node already: {now.why}",
                    remedy="lift that first: rollcall-agent unfreeze",
                )
            await self._keep(Kept(now=self._make(who, why), past=self.past))
        log.warning("frozen by hand", who=who, reason=why)

    async def lift(self, who: str, why: str) -> None:
        """Raises ConflictError when nobody froze by hand."""
        async with self._changing:
            if (now := self.now) is None:
                raise ConflictError(
                    "this node is not frozen by hand",
                    remedy="see what freezes it: rollcall-agent freezes",
                )
            lifted = Lifted(freeze=now, who=who, why=why, at=self._clock.now())
            await self._keep(Kept(past=[*self.past, lifted][-KEPT_PAST:]))
        log.warning("freeze lifted by hand", who=who, reason=why)

    async def _keep(self, kept: Kept) -> None:
        await asyncio.to_thread(write_durable, self._path, kept.canonical())
        self._kept = kept
        self._on_change()


class Freezes:
    """Both causes together, an administrator's first."""

    def __init__(self, hand: HandFreeze, mesh: Mesh, node: str) -> None:
        self.hand, self._mesh, self._node = hand, mesh, node

    def now(self) -> list[Freeze]:
        by_hand = [] if self.hand.now is None else [self.hand.now]
        reds = self._mesh.frozen_by()[:MAX_FREEZES]
        return [*by_hand, *(_of_red(red, self._node) for red in reds)][:MAX_FREEZES]

    def words(self) -> list[str]:
        return [freeze.words for freeze in self.now()]

    def first(self) -> str | None:
        """What a step says that must not go on; None while nothing freezes this node."""
        now = self.now()
        if not now:
            return None
        return "hand: " + now[0].why if now[0].by is By.HAND else f"a red of {now[0].who}"

    def listing(self) -> FreezeList:
        return FreezeList(now=self.now(), past=self.hand.past)


def _of_red(red: Message, node: str) -> Freeze:
    body = red.payload.body
    return Freeze(
        by=By.RED,
        who=red.payload.origin,
        why=short(body.reason, WHY_CHARS) if isinstance(body, Red) else "",
        since=red.payload.issued,
        key=red.key,
        kind=body.kind if isinstance(body, Red) else None,
        node=node,
    )
