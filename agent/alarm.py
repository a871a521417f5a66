"""This node's own reds: one for each kind and release, ended when the cause has ended."""

from __future__ import annotations

import structlog

from agent.freezes import Freezes
from agent.peers.mesh import Mesh
from agent.store import Store
from shared.clock import Clock
from shared.messages import Message, Red, RedKind, Verdict
from shared.readiness import ReadinessDocument
from shared.wire import short

log = structlog.get_logger()


class Alarms:
    """Implements Alarm for the upgrade, and turns lasting bad readiness into a red of its own."""

    def __init__(
        self,
        mesh: Mesh,
        store: Store,
        freezes: Freezes,
        clock: Clock,
        *,
        red_after_s: float,
        unknown_after_s: float,
    ) -> None:
        self._mesh, self._store, self._clock = mesh, store, clock
        self._freezes = freezes
        self._patience = {Verdict.RED: red_after_s, Verdict.UNKNOWN: unknown_after_s}
        self._since: dict[Verdict, float] = {}

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None:
        """Raised once: the same kind for the same release is not said again while it is open."""
        if self._own(kind, release):
            return
        red = Red(kind=kind, reason=short(reason), release=release)
        message = await self._mesh.broadcast(red)
        log.error("red", kind=kind, reason=reason, key=message.key)

    def _own(self, kind: RedKind, release: str | None) -> list[Message]:
        return [
            message
            for message in self._mesh.own_reds()
            if isinstance(message.payload.body, Red)
            and (message.payload.body.kind, message.payload.body.release) == (kind, release)
        ]

    async def end_reds(self, kind: RedKind, reason: str, *, but: str | None = None) -> None:
        """Clear this node's own reds of one kind, those about the release `but` left open."""
        for message in self._mesh.own_reds():
            body = message.payload.body
            if isinstance(body, Red) and body.kind == kind and (but is None or body.release != but):
                await self._mesh.clear(message.key, reason)

    async def block(self, release: str, reason: str) -> None:
        await self._store.block(release, reason, self._clock.now())

    async def blocked(self, release: str) -> str | None:
        return await self._store.blocked(release)

    def frozen(self) -> str | None:
        return self._freezes.first()

    async def judge(self, document: ReadinessDocument, *, kept: bool) -> None:
        """Called on every tick. `kept` is False while there is no release to keep up, and while an
        upgrade moves this node: then its own phases judge readiness."""
        if not kept or document.status is Verdict.GREEN:
            self._since.clear()
            if kept:
                await self.end_reds(RedKind.READINESS, "readiness is green again")
            return
        now = self._clock.monotonic()
        self._since.setdefault(Verdict.UNKNOWN, now)
        if document.status is Verdict.RED:
            self._since.setdefault(Verdict.RED, now)
        else:
            self._since.pop(Verdict.RED, None)
        if any(now - since >= self._patience[verdict] for verdict, since in self._since.items()):
            await self.raise_red(RedKind.READINESS, document.reason, None)
