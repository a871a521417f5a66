"""`python -m scripts.lab.many PLACES NUMBER/COUNT`: every COUNT-th node of a list in this process, orders to each by
`node`. A line of the list is `HOME NAME=HOST:PORT`; what it takes and tells is that of `node`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from agent.config import PeerConfig, parse_static
from scripts.lab.node import Node, end_with_sigterm, stay, tell
from shared import logs
from shared.lean import keep_for_good


class Many:
    """Of several nodes, by name."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self._nodes = nodes

    async def do(self, line: bytes) -> None:
        order = json.loads(line)
        await self._nodes[order.pop("node")].do(json.dumps(order).encode())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for node in self._nodes.values():
                group.create_task(node.run())


async def live(lines: list[str], number: int, count: int) -> None:
    places = [line.partition(" ")[2] for line in lines]
    end_with_sigterm()
    async with AsyncExitStack() as stack:
        nodes = {}
        for line in lines[number::count]:
            home, _, mine = line.partition(" ")
            name, host, port = parse_static(mine)
            others = [each for each in places if each != mine]
            config = PeerConfig(host=host, port=port, static=others, mdns=False)
            nodes[name] = Node(Path(home), config)
            await nodes[name].open(stack)
        keep_for_good()
        tell(event="up", port=0)
        await stay(Many(nodes))


def main() -> None:
    number, _, count = sys.argv[2].partition("/")
    places = Path(sys.argv[1])
    logs.configure(places.parent / "logs" / f"{number}.log")
    lines = places.read_text().splitlines()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(live(lines, int(number), int(count)))


if __name__ == "__main__":
    main()
