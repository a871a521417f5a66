"""The tree that `current` points at, against its seal and its lock (P1). A cheap sweep: the full
check reads every file and is done before a tree is switched to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.openclaw.tree import read_facts
from agent.readiness.reading import Reading, unknown
from shared.canonical import canonical_json
from shared.errors import BadInputError, UntrustedError
from shared.readiness import CheckStatus


class TreeProbe:
    id = "tree"
    timeout_s = 30.0

    def __init__(
        self, current: Path, period_s: float, drift: Callable[[Path], Awaitable[str | None]]
    ) -> None:
        """`drift` says why what is installed is not what the tree stands for, where they can differ."""
        self._current, self._drift = current, drift
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        if not self._current.is_symlink():
            return unknown("no release is installed")
        try:
            facts = await asyncio.to_thread(read_facts, self._current.resolve())
        except (UntrustedError, BadInputError, OSError) as error:
            return Reading(CheckStatus.FAIL, str(error))
        if reason := await self._drift(self._current.resolve()):
            return Reading(CheckStatus.FAIL, reason)
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
