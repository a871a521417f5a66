"""Snapshots of all shares: taken beside bookmarks and by operators, and what restoring one would change."""

from __future__ import annotations

from coordinator.fleet import FleetState
from coordinator.store.traffic import TrafficQueries
from coordinator.traffic.book import Said, TrafficBook
from coordinator.traffic.decide import AUTO
from shared.clock import Clock
from shared.errors import NotFoundError
from shared.rollout import NodeView
from shared.traffic import FULL, Difference, Restored, SavedShare, Snapshot

KEPT_AUTOMATIC = 200
SHOWN = 500


class Snapshots:
    """Of every node what is wanted, what it takes, and which release that is for."""

    def __init__(
        self, queries: TrafficQueries, book: TrafficBook, fleet: FleetState, clock: Clock
    ) -> None:
        self._queries, self._book, self._fleet, self._clock = queries, book, fleet, clock
        self._taken: set[str] = set()

    async def take(self, name: str, by: str, reason: str) -> Snapshot:
        """Raises ConflictError when there is one of this name."""
        made = await self._make(name, by, reason, "")
        await self._queries.add_snapshot(made)
        return made

    async def take_once(self, rollout: str, wave: int) -> None:
        """Beside the bookmarks of a wave. The first is the one of the rollout's start."""
        name = f"{rollout}-start" if wave == 0 else f"{rollout}-wave-{wave + 1}"
        if name in self._taken:
            return
        if not await self._queries.has_snapshot(name):
            reason = f"before wave {wave + 1} of rollout {rollout}"
            await self._queries.add_snapshot_once(await self._make(name, AUTO, reason, rollout))
            await self._queries.prune_snapshots(KEPT_AUTOMATIC)
        self._taken.add(name)

    async def _make(self, name: str, by: str, reason: str, rollout: str) -> Snapshot:
        fleet = await self._fleet.fleet()
        return Snapshot(
            name=name,
            created=self._clock.now(),
            by=by,
            reason=reason,
            rollout=rollout,
            nodes=[self._saved(view) for view in fleet.nodes.values()],
        )

    def _saved(self, view: NodeView) -> SavedShare:
        wanted = self._book.wanted.get(view.name)
        return SavedShare(
            node=view.name,
            desired=None if wanted is None else wanted.percent,
            pinned=wanted is not None and wanted.pinned,
            actual=view.weight,
            release=view.release,
        )

    async def all(self) -> list[Snapshot]:
        return await self._queries.snapshots(SHOWN)

    async def get(self, name: str) -> Snapshot:
        found = await self._queries.snapshot(name)
        if found is None:
            raise NotFoundError(
                f"there is no snapshot {name!r}", remedy="list them: rollcall traffic snapshots"
            )
        return found

    async def restore(self, name: str, by: str, reason: str, *, dry_run: bool) -> Restored:
        """What was wanted then is wanted again; what it does not name stays. Raises ConflictError while all ratios
        are frozen."""
        snapshot = await self.get(name)
        self._book.check_thawed()
        views = (await self._fleet.fleet()).nodes
        found = [
            difference
            for saved in snapshot.nodes
            if (difference := self._compare(saved, views.get(saved.node))) is not None
        ]
        words = {
            each.node: Said(each.then, each.pinned, views[each.node].release)
            for each in found
            if each.then is not None and each.node in views
        }
        answer = Restored(snapshot=name, dry_run=dry_run, differences=found)
        if words and not dry_run:
            said = f"{reason} (snapshot {name})"
            await self._book.say(words, by, said, lambda _: answer)
        return answer

    def _compare(self, saved: SavedShare, view: NodeView | None) -> Difference | None:
        """None where nothing is to change."""
        then = saved.actual if saved.desired is None else saved.desired
        if view is None:
            return Difference(node=saved.node, then=then, note="it is not in the fleet any more")
        wanted = self._book.wanted.get(saved.node)
        now = view.weight if wanted is None else wanted.percent
        pinned = saved.pinned or (then is not None and then < FULL)
        same = now == then and pinned == (wanted is not None and wanted.pinned)
        if then is None or (same and view.weight == then):
            return None
        other = saved.release != view.release
        note = "it ran another release then: only its share is restored" if other else ""
        return Difference(node=saved.node, now=now, then=then, pinned=pinned, note=note)
