"""`scripts/failpoints`: exit codes 0 all came through, 1 a promise was broken, 2 usage, 130 interrupted."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scripts.minifleet.ending import run_and_tell
from scripts.minifleet.killing import Points, Rig
from scripts.minifleet.workspace import Workspace
from shared.terminal import say

MOST_RIGS = 8


@dataclass(frozen=True)
class Trip:
    """One upgrade and one rollback, killed at these places."""

    up: list[str]
    back: list[str]
    restage: bool


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/failpoints",
        description="Kill an agent at every named place of an upgrade and of a rollback, and look that the"
        " node comes through by itself: one runnable release, its gateway serving.",
        epilog="Exit codes: 0 all came through, 1 a promise was broken, 2 usage, 130 interrupted.",
    )
    parser.add_argument("--passes", type=int, default=1, help="how often each place (default: 1)")
    parser.add_argument(
        "--per-trip", type=int, default=1, help="kills in one upgrade, far apart (default: 1)"
    )
    parser.add_argument("--rigs", type=int, default=2, help="nodes side by side (default: 2)")
    parser.add_argument("--only", metavar="TEXT", help="only places whose name contains this")
    parser.add_argument("--real", action="store_true", help="the real OpenClaw, not the stand-in")
    parser.add_argument("--list", action="store_true", help="only name the places")
    parser.add_argument("--json", action="store_true", help="the tally as JSON on stdout")
    options = parser.parse_args(argv)
    if min(options.passes, options.per_trip) < 1 or not 1 <= options.rigs <= MOST_RIGS:
        parser.error(f"--passes and --per-trip are at least 1, --rigs 1 to {MOST_RIGS}")
    return options


def plan(points: Points, only: str | None, per_trip: int) -> list[Trip]:
    """Trips that kill once at each place. Places of one trip lie far apart, so that what one kill upsets
    is over when the next one comes."""
    up, back = (
        [name for name in names if not only or only in name] for names in (points.up, points.back)
    )
    ups, backs = list(_spread(up, per_trip)), list(_spread(back, per_trip))
    count = max(len(ups), len(backs))
    ups += [[]] * (count - len(ups))
    backs += [[]] * (count - len(backs))
    return [
        Trip(one, two, restage=bool(points.staging & set(one)))
        for one, two in zip(ups, backs, strict=True)
    ]


def _spread(names: list[str], per_trip: int) -> Iterator[list[str]]:
    trips = -(-len(names) // per_trip) if names else 0
    for start in range(trips):
        yield names[start::trips]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    rigs = [Rig(Workspace(), real=options.real) for _ in range(options.rigs)]
    try:
        async with asyncio.TaskGroup() as group:
            for rig in rigs:
                group.create_task(rig.open())
        say("looking for the places, in one upgrade and one rollback in peace")
        points = await rigs[0].discover()
        if options.list:
            return {"up": points.up, "back": points.back}
        trips = plan(points, options.only, options.per_trip) * options.passes
        say(
            f"{len(points.up)} places on the way up, {len(points.back)} on the way back; {len(trips)} trips"
        )
        await rigs[0].reset()
        queue = list(enumerate(trips, start=1))
        async with asyncio.TaskGroup() as group:
            for rig in rigs:
                group.create_task(_travel(rig, queue, len(trips)))
    finally:
        for rig in rigs:
            await rig.close()
    return {**_sum(rigs), "trips": len(trips), "seconds": round(time.monotonic() - began)}


async def _travel(rig: Rig, queue: list[tuple[int, Trip]], count: int) -> None:
    while queue:
        number, trip = queue.pop(0)
        end = await rig.up(trip.up, restage=trip.restage)
        if end == "done":
            end = await rig.back(trip.back)
        say(f"[{number}/{count}] {' '.join([*trip.up, '|', *trip.back])}: {end}")
        await rig.reset()


def _sum(rigs: list[Rig]) -> dict[str, Any]:
    ends: dict[str, int] = {}
    for rig in rigs:
        for end, times in rig.tally.ends.items():
            ends[end] = ends.get(end, 0) + times
    killed = [name for rig in rigs for name in rig.tally.killed]
    missed = [name for rig in rigs for name in rig.tally.missed]
    return {
        "kills": len(killed),
        "places": len(set(killed)),
        "not_reached": sorted(set(missed) - set(killed)),
        "ended": ends,
    }


def main() -> int:
    options = parse(sys.argv[1:])
    return run_and_tell("failpoints", run(options), as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
