"""The tree that `current` points at, against its seal and its lock (P1).

Each reading reads the seal, the lock and the versions, and looks at the change times of the folders. Now and
then, and when a folder was touched, it looks at every entry. When an entry was touched that it has not
judged before, it reads every file. It does that once in any case: what happened while no agent ran counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.openclaw.changed import (
    broken_seal,
    seal_time,
    touched_entries,
    touched_folders,
)
from agent.openclaw.tree import read_facts
from agent.readiness.reading import Reading, unknown
from shared.canonical import canonical_json
from shared.errors import BadInputError, UntrustedError
from shared.readiness import CheckStatus

SWEEP_SHARE = 1 / 2000
"""Of a core: the most that looking at every entry may cost."""
PATIENCE_S = 20.0


@dataclass
class _Known:
    """What is known of one tree. The thread that sweeps is the only one that changes it."""

    tree: Path
    sealed: int
    next_sweep: float
    folders_seen: str
    folders: list[str] = field(default_factory=list)
    judged: str = ""
    """The digest of what was touched when every file was last read."""
    failure: str | None = None
    suspect: bool = False


class TreeProbe:
    id = "tree"
    timeout_s = 30.0

    def __init__(
        self,
        current: Path,
        period_s: float,
        drift: Callable[[Path], Awaitable[str | None]],
        *,
        sweep_every_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`drift` says why what is installed is not what the tree stands for, where they can differ."""
        self._current, self._drift = current, drift
        self._sweep_every_s, self._monotonic = sweep_every_s, monotonic
        self._known: _Known | None = None
        self._sweeping: asyncio.Future[None] | None = None
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if not self._current.is_symlink():
            return unknown("no release is installed")
        try:
            tree = await asyncio.to_thread(self._current.resolve)
            facts = await asyncio.to_thread(read_facts, tree)
            if reason := await self._drift(tree) or await self._swept(tree):
                return Reading(CheckStatus.FAIL, reason)
        except (UntrustedError, BadInputError, OSError) as error:
            return Reading(CheckStatus.FAIL, str(error))
        if self._known is not None and self._known.suspect:
            return unknown("something in the tree was touched; every file of it is being read")
        compared = {
            "release": facts.release,
            "core_on_disk": facts.core,
            "plugins": facts.plugins,
            "lock_sha256": facts.lock_sha256,
            "tree_sha256": facts.tree_sha256,
            "config_schema": facts.config_schema,
        }
        return Reading(
            CheckStatus.PASS, observed=facts.core, facts=compared, raw=canonical_json(compared)
        )

    async def _swept(self, tree: Path) -> str | None:
        """Why the tree is not whole. The first reading of a tree only makes a note of it, and the sweep comes a
        period later: until then it may be an upgrade's outage. One that takes long goes on beyond a reading."""
        if self._known is None or self._known.tree != tree:
            self._known = await asyncio.to_thread(self._note, tree)
            return None
        if self._sweeping is None or self._sweeping.done():
            work = asyncio.to_thread(self._sweep, self._known)
            self._sweeping = asyncio.ensure_future(work)
        done, _ = await asyncio.wait({self._sweeping}, timeout=PATIENCE_S)
        for each in done:
            each.result()
        return self._known.failure

    def _note(self, tree: Path) -> _Known:
        first = self._monotonic() + self.period_s
        return _Known(tree, seal_time(tree), first, touched_folders(tree, []).digest)

    def _sweep(self, known: _Known) -> None:
        sealed = seal_time(known.tree)
        folders = touched_folders(known.tree, known.folders).digest
        same = sealed == known.sealed and folders == known.folders_seen
        if same and self._monotonic() < known.next_sweep:
            return
        began = time.thread_time()
        touched, known.folders = touched_entries(known.tree)
        cost = time.thread_time() - began
        known.next_sweep = self._monotonic() + min(self._sweep_every_s, cost / SWEEP_SHARE)
        known.folders_seen = touched_folders(known.tree, known.folders).digest
        if touched.digest == known.judged and sealed == known.sealed:
            return
        known.suspect = touched.count > 0
        known.failure = broken_seal(known.tree, touched)
        known.judged, known.sealed, known.suspect = touched.digest, sealed, False
