"""The store's trees: which may go, and their going.

The store may be shared by agents on one host. Each says in `<store>/.users` which trees it needs, before it
needs them; nobody takes a tree that somebody named. A tree leaves by a rename, which is done or not
done whatever happens, and is deleted in the background by a child of low priority.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.config import OpenClawConfig
from agent.layout import Layout
from agent.openclaw.tree import read_seal, room_for_tree
from agent.service.base import GatewayService
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.lastgood import read_last_good
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from shared.clock import Clock
from shared.command import CHILD_OF, SYSTEM_PATH, run_command
from shared.durable import sync_directory, wait_for_lock, write_durable
from shared.errors import BadInputError, RollcallError
from shared.failpoint import fail_point
from shared.release import CORE
from shared.wire import Sha256, Wire

log = structlog.get_logger()

USERS, GONE = ".users", ".gone-"
STALE_S = 30 * 86400.0
EVERY_S = 86400.0
LOOK_EVERY_S = 2.0
DELETE_TIMEOUT_S = 3600.0
_ID = re.compile(r"[0-9a-f]{64}")


class Lease(Wire):
    """What one agent needs of the store. `home` tells it from the others."""

    home: str
    trees: list[Sha256]
    at: float


@dataclass(frozen=True)
class Tree:
    id: str
    at: float
    """When it was staged."""


@dataclass(frozen=True)
class Need:
    """`must` stays whatever the disk is like; `wish` as long as there is room."""

    must: frozenset[str]
    wish: frozenset[str]


def may_go(trees: list[Tree], need: Need, keep: int, *, low: bool) -> list[str]:
    """The oldest first. With room: all that nobody needs beyond the `keep` newest, those needed counted.
    When the disk is `low`: everything but what must stay."""
    if low:
        return [tree.id for tree in sorted(trees, key=_age) if tree.id not in need.must]
    needed = need.must | need.wish
    spare = [tree.id for tree in sorted(trees, key=_age) if tree.id not in needed]
    kept = max(0, keep - (len(trees) - len(spare)))
    return spare[: max(0, len(spare) - kept)]


def _age(tree: Tree) -> tuple[float, str]:
    return tree.at, tree.id


class Trees:
    """One agent's view of its store. `records` says which upgrade goes on; `prune` takes away the bookmarks
    that may go."""

    def __init__(
        self,
        config: OpenClawConfig,
        layout: Layout,
        state: Path,
        bookmarks: Bookmarks,
        service: GatewayService,
        clock: Clock,
        records: Callable[[], Record | None],
        prune: Callable[[], Awaitable[object]],
    ) -> None:
        self._config, self._layout, self._state = config, layout, state
        self._bookmarks, self._service, self._clock = bookmarks, service, clock
        self._records, self._prune = records, prune
        self._busy = asyncio.Lock()

    async def prepare(self, release: str) -> None:
        """Before an upgrade to `release`: nobody else may take its tree, and there is room for it, if old
        trees are what takes the room. Raises OSError when the lease cannot be written."""
        async with self._busy:
            await asyncio.to_thread(self._lease, {release})
            if await asyncio.to_thread(self._is_low):
                await self._retire(low=True, besides={release})
                await self._sweep()

    async def run(self) -> None:
        """For ever: at the start, once a day, and whenever an upgrade has ended."""
        while True:
            ended = self._ended()
            await self.tidy()
            until = self._clock.monotonic() + EVERY_S
            while self._clock.monotonic() < until and self._ended() in (ended, None):
                await self._clock.sleep(LOOK_EVERY_S)

    def _ended(self) -> str | None:
        """The upgrade that ended last; None while one goes on."""
        record = self._records()
        if record is None:
            return ""
        return f"{record.upgrade} {record.phase}" if record.over else None

    async def tidy(self) -> None:
        """Never while an upgrade goes on, which has its own needs. Bookmarks first: each keeps its tree."""
        if self._ended() is None:
            return
        for what, work in (("bookmarks", self._prune), ("trees", self._take_old)):
            try:
                await work()
            except (RollcallError, OSError) as error:
                log.warning(f"old {what} stay", reason=str(error))

    async def _take_old(self) -> None:
        async with self._busy:
            low = await asyncio.to_thread(self._is_low)
            await self._retire(low=low, besides=set())
            await self._sweep()

    def _is_low(self) -> bool:
        usage = shutil.disk_usage(self._layout.releases)
        seals = [read_seal(self._layout.releases / tree.id) for tree in self._trees()]
        largest = max((seal.bytes for seal in seals if seal), default=0)
        wanted = max(self._config.disk_watermark.of(usage.total), room_for_tree(largest))
        return usage.free < wanted

    async def _retire(self, *, low: bool, besides: set[str]) -> None:
        running = await self._service.alive()
        started = None if running is None else running.started
        gone = await asyncio.to_thread(self._take_away, low, besides, started)
        if gone:
            log.info("trees retired", trees=gone, low=low)

    def _take_away(self, low: bool, besides: set[str], started: float | None) -> list[str]:
        """Under the lock of the store: what somebody names a moment later is gone already, and staged anew;
        what was named a moment before stays."""
        store = self._layout.releases
        if started is not None and self._is_older(started):
            return []
        with wait_for_lock(self._users() / ".lock"):
            need = self.need(besides)
            with contextlib.suppress(OSError):  # a full disk is why we are here
                self._write_lease(need.must | need.wish)
            others = frozenset(self._others())
            whole = Need(need.must | others, need.wish)
            victims = may_go(self._trees(), whole, self._config.keep_trees, low=low)
            for victim in victims:
                fail_point("tree.retire")
                (store / victim).rename(store / f"{GONE}{secrets.token_hex(8)}")
            sync_directory(store)
        return victims

    def _is_older(self, started: float) -> bool:
        """A gateway that was started before `current` was switched runs on a tree that no link names."""
        try:
            return self._layout.current.lstat().st_mtime > started
        except FileNotFoundError:
            return False

    def _trees(self) -> list[Tree]:
        return [
            Tree(path.name, path.lstat().st_mtime)
            for path in self._layout.releases.iterdir()
            if _ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        ]

    def need(self, besides: set[str]) -> Need:
        """Of this agent. Blocking."""
        layout, record = self._layout, self._records()
        good = read_last_good(layout.home)
        must = {layout.current.resolve().name, *besides, *self._linked()}
        must |= {good.release} if good is not None else set()
        if record is not None and (not record.over or record.phase is Phase.STUCK):
            must |= {record.target.release, str(record.fact(Phase.CLAIMED, "previous"))}
        wish = {bookmark.previous for bookmark in self._bookmarks.all() if bookmark.previous}
        return Need(_ids(must), _ids(wish))

    def _linked(self) -> set[str]:
        """OpenClaw lends its core to a plugin by a link to the tree itself."""
        found: set[str] = set()
        for pattern in ("*/node_modules/*/node_modules", "*/node_modules/@*/*/node_modules"):
            for modules in (self._state / "npm" / "projects").glob(pattern):
                with contextlib.suppress(OSError):
                    found |= set((modules / CORE).readlink().parts)
        return found

    def _lease(self, trees: set[str]) -> None:
        with wait_for_lock(self._users() / ".lock"):
            need = self.need(trees)
            self._write_lease(need.must | need.wish)

    def _users(self) -> Path:
        folder = self._layout.releases / USERS
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder

    def _write_lease(self, trees: frozenset[str]) -> None:
        lease = Lease(home=str(self._layout.home), trees=sorted(trees), at=self._clock.now())
        write_durable(self._users() / _lease_name(lease.home), lease.canonical(), mode=0o644)

    def _others(self) -> set[str]:
        """What other agents need. Of one that has not been heard of for long only what it runs counts."""
        found: set[str] = set()
        for path in self._users().glob("*.json"):
            try:
                lease = Lease.from_bytes(path.read_bytes())
            except (OSError, BadInputError) as error:
                raise RollcallError(f"{path} cannot be read, so nothing goes: {error}") from error
            if lease.home == str(self._layout.home):
                continue
            if self._clock.now() - lease.at < STALE_S:
                found |= set(lease.trees)
            else:
                found |= _still_runs(lease)
        return found

    async def _sweep(self) -> None:
        """Also what an earlier agent, or another one, did not get to delete."""
        gone = await asyncio.to_thread(lambda: sorted(self._layout.releases.glob(f"{GONE}*")))
        env = {"PATH": SYSTEM_PATH, CHILD_OF: str(self._layout.home)}
        for path in gone:
            argv = ["/usr/bin/nice", "-n", "19", "/bin/rm", "-rf", "--", str(path)]
            output = await run_command(argv, env=env, timeout_s=DELETE_TIMEOUT_S)
            if output.code != 0:
                log.warning(
                    "an old tree was not deleted", path=str(path), reason=output.last_line()
                )


def _lease_name(home: str) -> str:
    return f"{hashlib.sha256(os.fsencode(home)).hexdigest()[:32]}.json"


def _still_runs(lease: Lease) -> set[str]:
    """A home that is gone needs nothing; one that cannot be looked into needs what it said."""
    current = Path(lease.home) / "current"
    try:
        return {current.readlink().name}
    except FileNotFoundError:
        return set()
    except OSError:
        return set(lease.trees)


def _ids(names: set[str]) -> frozenset[str]:
    return frozenset(name for name in names if _ID.fullmatch(name))
