"""`scripts/soak`: two busy gateways with the guards that a fleet has; nobody may call them sick.

Exit codes: 0 never red and one hash throughout, 1 otherwise, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from agent.readiness.footprint import pss_of
from scripts.minifleet.ending import run_and_tell
from scripts.minifleet.fleet import REAL, STANDIN, MiniFleet, Node
from scripts.minifleet.modelstub import WITH_TURNS, ModelStub, provider, take_turns
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.readiness import ReadinessDocument
from shared.roster import Role
from shared.terminal import say

MIB = 1 << 20
VERSION = "2026.9.6"
LOOK_EVERY_S = 1.0


class SickError(RollcallError):
    """A healthy node was called sick, or two of one release differ."""

    code = "sick"


@dataclass
class Seen:
    """Of both nodes together; `hashes` of green documents."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    hashes: set[str] = field(default_factory=set)
    reds: set[str] = field(default_factory=set)
    turns: int = 0

    def note(self, document: ReadinessDocument) -> None:
        self.verdicts[document.status] += 1
        if document.status == "green":
            self.hashes.add(document.ready_probe_sha256)
        else:
            self.reasons[document.reason[:200]] += 1

    def judge(self) -> None:
        """Raises SickError."""
        if self.reds:
            raise SickError(f"red: {'; '.join(sorted(self.reds))}")
        if len(self.hashes) > 1:
            raise SickError(f"{len(self.hashes)} hashes of one release")

    def shown(self) -> dict[str, Any]:
        return {
            "verdicts": dict(self.verdicts),
            "reasons": dict(self.reasons),
            "hashes": sorted(self.hashes),
            "reds": sorted(self.reds),
            "turns": self.turns,
        }


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Keep two gateways busy, kill one agent half-way, and look each second that nobody is"
        " called red and that both have one hash.",
        epilog="Exit codes: 0 well, 1 called sick, 2 usage, 130 interrupted.",
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--stand-in", action="store_true", help="no real OpenClaw, and no turns")
    parser.add_argument("--json", action="store_true", help="what was seen as JSON on stdout")
    options = parser.parse_args(argv)
    if options.minutes <= 0:
        parser.error("--minutes is above 0")
    return options


async def run(options: argparse.Namespace) -> dict[str, Any]:
    pace = replace(STANDIN if options.stand_in else REAL, hurried=False)
    roles = (Role.CANARY, Role.STABLE)
    async with ModelStub() as stub:
        fleet = MiniFleet(Workspace(), pace, standin=options.stand_in, mdns=False, roles=roles)
        try:
            if not options.stand_in:
                for node in fleet.nodes:
                    node.gateway_config = {**WITH_TURNS, **provider(stub.port)}
            await fleet.open()
            say(f"installing {VERSION} on both")
            await fleet.install(VERSION)
            return (await _watch(fleet, options)).shown()
        finally:
            await fleet.close()


async def _watch(fleet: MiniFleet, options: argparse.Namespace) -> Seen:
    seen = Seen()
    turns = [] if options.stand_in else [_take_turns(node, seen) for node in fleet.nodes]
    working = [asyncio.create_task(each) for each in turns]
    began = time.monotonic()
    half, ends = began + 30 * options.minutes, began + 60 * options.minutes
    said = 0
    try:
        async with aiohttp.ClientSession() as client:
            while (now := time.monotonic()) < ends:
                for node in fleet.nodes:
                    await _look(client, node, seen)
                seen.judge()
                for each in working:
                    if each.done():
                        each.result()
                if now >= half:
                    half = ends
                    await _kill_agent(fleet)
                if (minute := int((now - began) // 60)) > said:
                    said = minute
                    say(f"[{minute} min] {_line(fleet, seen)}")
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        for each in working:
            each.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    return seen


async def _look(client: aiohttp.ClientSession, node: Node, seen: Seen) -> None:
    """Nothing for an agent that is just being started again."""
    base = f"http://127.0.0.1:{node.api_port}"
    with contextlib.suppress(aiohttp.ClientConnectorError):
        async with client.get(f"{base}/v1/readiness") as answer:
            seen.note(ReadinessDocument.from_bytes(await answer.read()))
        async with client.get(f"{base}/v1/status") as answer:
            seen.reds.update((await answer.json())["open_reds"])


def _line(fleet: MiniFleet, seen: Seen) -> str:
    sizes = [(pss_of(pid) or 0) / MIB for pid in fleet.supervisor.pids().values()]
    used = ", ".join(f"{size:.0f}" for size in sizes)
    return f"{json.dumps(seen.verdicts)}, {seen.turns} turns; coordinator and agents use {used} MiB"


async def _kill_agent(fleet: MiniFleet) -> None:
    """Its gateway goes on; the agent comes back by itself, to the same hash."""
    pid = fleet.supervisor.pid(fleet.nodes[0].name)
    if pid is not None:
        say(f"killing the agent of {fleet.nodes[0].name}")
        os.kill(pid, signal.SIGKILL)


async def _take_turns(node: Node, seen: Seen) -> None:
    config = node.gateway_home / ".openclaw" / "openclaw.json"
    token = json.loads(await asyncio.to_thread(config.read_text))["gateway"]["auth"]["token"]
    async for _ in take_turns(node.gateway_port, token):
        seen.turns += 1


def main(argv: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    return run_and_tell("soak", run(options), as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
