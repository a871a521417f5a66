"""`python -m tests.support.mdnsnode NAME PORT WANTED`: a node's mDNS alone, which prints what it knows as a line of
JSON whenever that has changed."""

from __future__ import annotations

import asyncio
import json
import sys

from agent.peers.directory import Directory, netloc
from agent.peers.mdns import Discovery
from shared import logs
from shared.clock import SystemClock

FLEET = "ab" * 32


async def main(name: str, port: int, wanted: str) -> None:
    directory = Directory()
    node = Discovery(
        directory, lambda: [wanted], lambda peer: None, SystemClock(), fleet=FLEET, name=name
    )
    await node.start(port=port, interfaces=[], advertise=None, host="::")
    watching = asyncio.create_task(node.run())
    said = ""
    while not watching.done():
        known = {
            "hints": [netloc(each) for each in directory.hints(wanted)],
            "interfaces": node.interfaces,
            "trouble": node.trouble,
            "alerts": node.alerts,
        }
        if (text := json.dumps(known)) != said:
            said = text
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        await asyncio.sleep(0.1)
    watching.result()


if __name__ == "__main__":
    logs.configure(None)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
