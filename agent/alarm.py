"""This node's own reds: raised once per topic, ended when the cause has ended."""

from __future__ import annotations

import structlog

from agent.peers.mesh import Mesh
from agent.store import Store
from shared.clock import Clock
from shared.messages import Red, RedKind, Verdict
from shared.readiness import ReadinessDocument

log = structlog.get_logger()

READINESS_TOPIC = "readiness"


class Alarms:
    """Implements Alarm for the upgrade, and turns lasting failed readiness into a red of its own."""

    def __init__(self, mesh: Mesh, store: Store, clock: Clock, red_after_s: float) -> None:
        self._mesh, self._store, self._clock = mesh, store, clock
        self._red_after_s = red_after_s
        self._failed_since: float | None = None

    async def raise_red(self, topic: str, kind: RedKind, reason: str, release: str | None) -> None:
        """Raised again only when the earlier red of this topic has been cleared."""
        known = await self._store.get(f"red:{topic}")
        if known is not None and known in {red.key for red in self._mesh.own_reds()}:
            return
        message = await self._mesh.broadcast(Red(kind=kind, reason=reason, release=release))
        await self._store.put(f"red:{topic}", message.key)
        log.error("red", kind=kind, reason=reason, key=message.key)

    async def end(self, topic: str, reason: str) -> None:
        known = await self._store.get(f"red:{topic}")
        if known is not None and known in {red.key for red in self._mesh.own_reds()}:
            await self._mesh.clear(known, reason)

    async def block(self, release: str, reason: str) -> None:
        await self._store.block(release, reason, self._clock.now())

    async def blocked(self, release: str) -> str | None:
        return await self._store.blocked(release)

    def frozen(self) -> str | None:
        reds = self._mesh.frozen_by()
        return f"a red of {reds[0].payload.origin}" if reds else None

    async def judge(self, document: ReadinessDocument, *, kept: bool) -> None:
        """Called on every tick. `kept` is False while there is no release to keep up, and while an
        upgrade moves this node: then its own phases judge readiness."""
        if not kept or document.status is not Verdict.RED:
            self._failed_since = None
            if kept and document.status is Verdict.GREEN:
                await self.end(READINESS_TOPIC, "readiness is green again")
            return
        now = self._clock.monotonic()
        if self._failed_since is None:
            self._failed_since = now
        if now - self._failed_since >= self._red_after_s:
            await self.raise_red(
                READINESS_TOPIC, RedKind.READINESS, document.reason, document.comparable.release
            )
