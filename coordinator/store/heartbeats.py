"""Heartbeats of many nodes, written together: what comes within a few milliseconds costs one sync of the disk."""

from __future__ import annotations

from coordinator.store.nodes import Beat, NodeQueries
from coordinator.store.together import Together

GATHER_S = 0.005
"""How long the first of them waits for others, where many come."""


class Heartbeats:
    """Of a node the last word stays."""

    def __init__(self, nodes: NodeQueries, gather_s: float = GATHER_S) -> None:
        self._together: Together[Beat] = Together(nodes.hear, "heartbeats", gather_s)

    async def keep(self, name: str, at: float, report: str | None) -> None:
        """`report` as in Beat. Returns when it is durable. Raises what the database says."""
        await self._together.keep(Beat(name, at, report))

    async def close(self) -> None:
        await self._together.close()
