"""`scripts/bench`: exit codes 0 done, 1 failed, 2 usage, 3 the rival is missing."""

from __future__ import annotations

import argparse
import asyncio

from scripts.benchmarks import (
    broadcast,
    detect,
    footprint,
    outage,
    page,
    readiness,
    rollout,
    sync,
    verify,
)
from scripts.benchmarks.frame import Bench, Options, publish, summarise
from shared.errors import RollcallError
from shared.terminal import EXIT_INTERRUPTED, say

BENCHMARKS: dict[str, Bench] = {
    "broadcast": broadcast.run,
    "detect": detect.run,
    "footprint": footprint.run,
    "outage": outage.run,
    "page": page.run,
    "readiness": readiness.run,
    "rollout": rollout.run,
    "sync": sync.run,
    "verify": verify.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--pair",
        choices=[*outage.PAIRS, "all"],
        default="all",
        help="outage only: versions of equal schema, ones that migrate, or both",
    )
    parser.add_argument(
        "--seconds", type=float, default=120, help="footprint only: how long to look, 5 to 3600"
    )
    parser.add_argument(
        "--alarms", type=int, default=100, help="broadcast only: how many in each case, 1 to 10000"
    )
    parser.add_argument(
        "--nodes",
        type=int,
        choices=rollout.SIZES,
        default=0,
        help="rollout only: this many (default: each of them)",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 100:
        parser.error("--rounds is between 1 and 100")
    if not 5 <= options.seconds <= 3600:
        parser.error("--seconds is between 5 and 3600")
    if not 1 <= options.alarms <= 10_000:
        parser.error("--alarms is between 1 and 10000")
    wanted = Options(options.rounds, options.pair, options.seconds, options.alarms, options.nodes)
    try:
        samples = asyncio.run(BENCHMARKS[options.name](wanted))
    except RollcallError as error:
        say(f"bench {options.name}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    publish(options.name, summarise(samples), as_json=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
