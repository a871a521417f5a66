"""What a rollback from the next upgrade would lead to and need: looked at now and then, told with the report."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import structlog

from agent.changes import Changes
from agent.config import GatewayConfig
from agent.layout import Layout
from agent.openclaw.tree import config_schema, read_seal
from agent.upgrade.snapshots import Snapshots
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError
from shared.report import Standing

log = structlog.get_logger()

LOOK_EVERY_S = 600.0


class Outlook:
    """`now` is None until a release runs and has been looked at."""

    def __init__(
        self,
        layout: Layout,
        gateway: GatewayConfig,
        snapshots: Snapshots,
        clock: Clock,
        changes: Changes,
    ) -> None:
        self._layout, self._gateway = layout, gateway
        self._snapshots, self._clock = snapshots, clock
        self._changed = asyncio.Event()
        changes.listen(self._changed.set)
        self.now: Standing | None = None

    async def run(self) -> None:
        """Anew when another release runs, and every ten minutes: sizes change."""
        looked, of = float("-inf"), None
        while True:
            self._changed.clear()
            tree = await asyncio.to_thread(self._tree)
            due = self._clock.monotonic() - looked >= LOOK_EVERY_S
            if tree != of or due:
                try:
                    self.now = await asyncio.to_thread(self._look, tree)
                except (RollcallError, OSError) as error:
                    log.warning("cannot tell the way back", reason=str(error))
                looked, of = self._clock.monotonic(), tree
            await wait_at_most(self._changed, LOOK_EVERY_S)

    def _tree(self) -> Path | None:
        current = self._layout.current
        return current.resolve() if current.exists() else None

    def _look(self, tree: Path | None) -> Standing | None:
        if tree is None:
            return None
        state = self._gateway.state
        return Standing(
            release=tree.name,
            whole=read_seal(tree) is not None,
            schema_versions=config_schema(tree),
            state_bytes=self._snapshots.measure([state, *self._gateway.workspaces]),
            free_bytes=shutil.disk_usage(state.parent).free,
            same_disk=state.parent.stat().st_dev == self._layout.home.stat().st_dev,
            at=self._clock.now(),
        )
