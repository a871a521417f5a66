"""What upgrades leave behind on a node: bookmarks, and the memory of releases that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from agent.layout import Layout
from agent.store import Blocked, Store
from agent.upgrade.bookmark import Bookmark, Bookmarks, Keeping, which_go
from agent.upgrade.lastgood import read_last_good
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from shared.clock import Clock
from shared.errors import NotFoundError
from shared.wire import Wire

log = structlog.get_logger()


class BookmarkSummary(Wire):
    upgrade: str
    previous: str | None
    previous_version: str | None
    created: float
    weight: int
    bytes: int
    folders: int
    needed: str = ""
    """Why it is not pruned, whatever its age."""


class Keeper:
    """`record` is the journal's, `usual` how long bookmarks stay when nobody says otherwise."""

    def __init__(
        self,
        bookmarks: Bookmarks,
        store: Store,
        layout: Layout,
        clock: Clock,
        record: Callable[[], Record | None],
        usual: Keeping,
        on_change: Callable[[], None],
    ) -> None:
        self._bookmarks, self._store, self._layout = bookmarks, store, layout
        self._clock, self._record, self._usual = clock, record, usual
        self._on_change = on_change

    async def bookmarks(self) -> list[BookmarkSummary]:
        return await asyncio.to_thread(self._list)

    def _list(self) -> list[BookmarkSummary]:
        needed, good = self._needed(), self._good()
        return [
            BookmarkSummary(
                upgrade=each.upgrade,
                previous=each.previous,
                previous_version=each.previous_version,
                created=each.created,
                weight=each.weight,
                bytes=self._bookmarks.size(each.upgrade),
                folders=len(each.folders),
                needed=needed.get(each.upgrade)
                or (
                    "leads to the last known good release" if good and each.previous == good else ""
                ),
            )
            for each in self._bookmarks.all()
        ]

    def keeping(self, count: int | None, days: float | None) -> Keeping:
        """The usual limits where none are given."""
        usual = self._usual
        return Keeping(
            usual.count if count is None else count, usual.days if days is None else days
        )

    async def show(self, upgrade: str) -> Bookmark:
        """Raises NotFoundError."""
        return await asyncio.to_thread(self._bookmarks.get, upgrade)

    async def prune(self, keeping: Keeping | None = None, *, dry_run: bool = False) -> list[str]:
        """Remove the bookmarks that may go, with what rollbacks set aside. Returns their names."""
        return await asyncio.to_thread(self._prune, keeping or self._usual, dry_run)

    def _prune(self, keeping: Keeping, dry_run: bool) -> list[str]:
        found, stray = self._bookmarks.all(), self._bookmarks.unreadable()
        needed = set(
            self._needed()
        )  # after looking: an upgrade begins before it opens its bookmark
        going = which_go(found, keeping, self._clock.now(), needed=needed, good=self._good())
        if not dry_run:
            for upgrade in [*going, *sorted(set(stray) - needed)]:
                self._bookmarks.remove(upgrade)
                log.info("bookmark pruned", upgrade=upgrade)
        return going

    def _needed(self) -> dict[str, str]:
        record = self._record()
        if record is None or (record.over and record.phase not in (Phase.DONE, Phase.STUCK)):
            return {}
        why = "the last upgrade: `rollback` would use it" if record.over else "in use now"
        return {record.upgrade: why}

    def _good(self) -> str | None:
        good = read_last_good(self._layout.home)
        return None if good is None else good.release

    async def blocklist(self) -> list[Blocked]:
        return await self._store.blocklist()

    async def unblock(self, release: str) -> list[str]:
        """A release's id, its first characters, or `all`. Returns what was cleared. Raises NotFoundError."""
        blocked = [each.release for each in await self._store.blocklist()]
        going = [each for each in blocked if release == "all" or each.startswith(release)]
        if not going and release != "all":
            raise NotFoundError(
                f"no release {release!r} on the blocklist",
                remedy="see: rollcall-agent blocklist list",
            )
        for each in going:
            await self._store.unblock(each)
        self._on_change()
        return going
