"""What this node knows that its share of traffic depends on, from where it is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.freezes import Freezes
from agent.layout import Layout
from agent.peers.mesh import Mesh
from agent.shares import Facts
from agent.traffic import Traffic
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from shared.readiness import ReadinessDocument
from shared.release import Release
from shared.traffic import TrafficWord


class WeighedNode:
    """Implements weighing's Node."""

    def __init__(
        self,
        layout: Layout,
        traffic: Traffic,
        record: Callable[[], Record | None],
        freezes: Freezes,
        mesh: Mesh,
        document: Callable[[], ReadinessDocument],
        kept: Callable[[str | None], Awaitable[Release | None]],
        in_hand: Callable[[], bool],
    ) -> None:
        self._layout, self._traffic, self._record = layout, traffic, record
        self._in_hand = in_hand
        self._freezes, self._mesh, self._document, self._kept = freezes, mesh, document, kept

    def facts(self, word: TrafficWord | None, attested: str | None) -> Facts:
        document, current = self._document(), self._layout.current
        return Facts(
            word=word,
            weight=self._traffic.get(),
            release=current.resolve().name if current.exists() else None,
            status=document.status,
            status_reason=document.reason,
            upgrade=holds_weight(self._record()),
            in_hand=self._in_hand(),
            freezes=tuple(self._freezes.words()),
            reds=tuple(red.key for red in self._mesh.own_reds()),
            attested=attested,
        )

    def ready_probe_sha256(self) -> str:
        return self._document().ready_probe_sha256

    async def signed(self, release: str | None) -> Release | None:
        return await self._kept(release)


def holds_weight(record: Record | None) -> str:
    """The phase of an upgrade that sets the weight itself; empty where none does. While a release soaks its share
    widens."""
    if record is None or record.over:
        return ""
    soaks = record.phase is Phase.SOAKING and record.status is Status.ENTERED
    return "" if soaks else str(record.phase)
