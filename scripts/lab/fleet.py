"""Nodes of the mesh alone, a process and a network namespace each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.lab.homes import make_homes
from scripts.lab.network import Network
from scripts.lab.process import NodeProcess
from shared.errors import UnavailableError

PORT = 7465
LINKED_S = 240.0
AT_ONCE = 8
"""So many are started together: where thirty dial each other at once on two busy cores, all see all time out."""


class LabFleet:
    """A context: up and linked inside, and stopped when it ends. `words` are options of every node; without
    `--discover` among them every node is told where the others are."""

    def __init__(
        self, root: Path, names: Sequence[str], network: Network, words: Sequence[str] = ()
    ) -> None:
        self._root, self.names, self.network = root, list(names), network
        self._words = words
        self.nodes: dict[str, NodeProcess] = {}

    async def __aenter__(self) -> LabFleet:
        homes = await asyncio.to_thread(make_homes, self._root, self.names)
        for name in self.names:
            self.nodes[name] = self._make(homes[name])
        try:
            await self._start_all()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start_all(self) -> None:
        up: list[str] = []
        for first in range(0, len(self.names), AT_ONCE):
            fresh = self.names[first : first + AT_ONCE]
            await asyncio.gather(*(self.nodes[name].start() for name in fresh))
            up += fresh
            for name in up:
                await self.nodes[name].until_linked(up, LINKED_S)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    def _make(self, home: Path) -> NodeProcess:
        name, network = home.name, self.network
        host, others = network.host(name), [each for each in self.names if each != name]
        if "--discover" in self._words:
            host, others = "::", []
        return NodeProcess(
            home,
            host,
            PORT,
            {each: (network.host(each), PORT) for each in others},
            before=network.before(name),
            words=self._words,
        )

    def others(self, *without: str) -> list[NodeProcess]:
        return [node for name, node in self.nodes.items() if name not in without]

    def events(self, good: Callable[[dict[str, Any]], bool]) -> list[tuple[str, dict[str, Any]]]:
        """What the nodes have told until now, of that kind, with the node's name."""
        return [
            (name, event)
            for name, node in self.nodes.items()
            for event in node.events
            if good(event)
        ]


def accuses(event: dict[str, Any]) -> bool:
    """Whether this event says of somebody that he is silent. A goodbye is no accusation."""
    return any(not each["left"] for each in event.get("away", {}).values())


async def until_heard(nodes: Sequence[NodeProcess], key: str, timeout_s: float) -> float:
    """When the last of them heard of this message, on the monotonic clock. Raises UnavailableError."""
    told = await asyncio.gather(
        *(
            node.until(
                lambda event: event["event"] == "heard" and event["key"] == key,
                f"heard {key}",
                timeout_s=timeout_s,
            )
            for node in nodes
        )
    )
    return max((float(event["at"]) for event in told), default=0.0)


async def until_acked(node: NodeProcess, key: str, count: int, timeout_s: float) -> float:
    """Seconds until the last of so many peers had signed for one of the node's own messages. Raises
    UnavailableError."""
    until = asyncio.get_running_loop().time() + timeout_s
    while True:
        sent = (await node.do("acks"))["broadcasts"]
        acked: dict[str, float] = next(each["acked_ms"] for each in sent if each["key"] == key)
        if len(acked) >= count:
            return max(acked.values()) / 1000
        if asyncio.get_running_loop().time() > until:
            raise UnavailableError(
                f"{node.name}: {len(acked)} of {count} acked {key} within {timeout_s:g} s"
            )
        await asyncio.sleep(0.1)
