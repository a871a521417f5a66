"""`python -m scripts.lab.quiet [--minutes M] [--nodes N] [--loss SHARE]`: nodes that are all there, on a network that
loses packets; nobody may be called silent. Needs root on Linux.

Exit codes: 0 nobody was called silent, 1 somebody was, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from scripts.lab.fleet import LabFleet, accuses
from scripts.lab.network import Network
from scripts.lab.node import end_with_sigterm
from shared.terminal import EXIT_INTERRUPTED, say

MIB = 1 << 20
LOOK_EVERY_S = 5.0
TELL_EVERY_S = 300.0
SETTLE_S = 10.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.lab.quiet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--loss", type=float, default=0.1, help="of what comes to each, 0 to 1")
    return parser.parse_args()


def footprint(fleet: LabFleet) -> str:
    found = [psutil.Process(node.pid) for node in fleet.nodes.values()]
    memory = max(each.memory_info().rss for each in found)
    return f"at most {memory // MIB} MiB and {max(each.num_fds() for each in found)} descriptors"


async def watch(fleet: LabFleet, until: float) -> int:
    """How often somebody was called silent. Each is said when it is seen."""
    began = said = time.monotonic()
    seen = {name: len(node.events) for name, node in fleet.nodes.items()}
    false = 0
    while (now := time.monotonic()) < until:
        for name, node in fleet.nodes.items():
            news, seen[name] = node.events[seen[name] :], len(node.events)
            for event in news:
                if event.get("event") == "away":
                    say(f"{event['at'] - began:7.1f} s: {name} says: {event['away'] or 'all back'}")
                    false += accuses(event)
        if now - said >= TELL_EVERY_S:
            said = now
            say(f"{now - began:7.1f} s: {false} false so far; {footprint(fleet)} in a node")
        await asyncio.sleep(LOOK_EVERY_S)
    return false


async def quiet(options: argparse.Namespace) -> int:
    end_with_sigterm()
    names = [f"n{number}" for number in range(options.nodes)]
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="rollcall-quiet-"))
    try:
        async with Network(names) as network, LabFleet(root, names, network) as fleet:
            await asyncio.gather(*(network.lose(name, options.loss) for name in names))
            await asyncio.sleep(SETTLE_S)
            say(f"{options.nodes} nodes, each loses {options.loss:.0%} of what comes to it")
            false = await watch(fleet, time.monotonic() + options.minutes * 60)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    say(
        f"{options.minutes:g} min, {options.nodes} nodes, {options.loss:.0%} loss:"
        f" somebody was called silent {false} times"
    )
    return 1 if false else 0


def main() -> int:
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        return asyncio.run(quiet(parse()))
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
