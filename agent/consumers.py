"""Who else than peers learns of reds: an operator's own tools, by a hook and by reading along."""

from __future__ import annotations

from agent.changes import Changes
from agent.config import HookConfig
from agent.feed import Feed, Inbox
from agent.hooks import FreezeHook, Tellings
from agent.peers.mesh import Mesh
from agent.store import Store
from shared.clock import Clock


class Consumers:
    """Told of every change."""

    def __init__(
        self,
        config: HookConfig,
        name: str,
        home: str,
        store: Store,
        mesh: Mesh,
        clock: Clock,
        changes: Changes,
    ) -> None:
        self.hook = FreezeHook(config, name, home, Tellings(store), mesh.open_reds, clock)
        self.feed = Feed(Inbox(store, name), clock)
        for told in (self.hook.changed, self.feed.changed):
            changes.listen(told)
