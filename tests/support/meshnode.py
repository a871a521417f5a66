"""`python -m tests.support.meshnode HOME`: the mesh part of an agent, on every interface of its host, with mDNS; prints
what `rollcall-agent peers` shows as a line of JSON, over and over."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from agent.layout import Layout
from agent.trust import Trust, load_trust
from shared import logs
from tests.support.trustkit import TestFleet
from tests.unit.test_mesh import Peer


class Written:
    """The fleet as one node's home has it."""

    def __init__(self, home: Path) -> None:
        self._layout = Layout(home)

    def layout(self, name: str) -> Layout:
        return self._layout

    def trust(self, name: str) -> Trust:
        return load_trust(self._layout)


async def main(home: Path) -> None:
    logs.configure(None)
    fleet = cast("TestFleet", Written(home))
    node = await Peer(fleet, home.name, datagrams=True, host="::", mdns=True).up()
    node.run(discover=True)
    while True:
        sys.stdout.write((await node.discovering.listing()).model_dump_json() + "\n")
        sys.stdout.flush()
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
