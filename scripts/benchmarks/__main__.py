"""`scripts/bench`: exit codes 0 done, 1 failed, 2 usage, 3 the rival is missing."""

from __future__ import annotations

import argparse
import asyncio

from scripts.benchmarks import rollout
from scripts.benchmarks.frame import Sample, publish, summarise
from shared.errors import RollcallError
from shared.terminal import EXIT_INTERRUPTED, say

BENCHMARKS = {"rollout": rollout.run_round}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 100:
        parser.error("--rounds is between 1 and 100")
    try:
        samples = asyncio.run(_rounds(options.name, options.rounds))
    except RollcallError as error:
        say(f"bench {options.name}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    publish(options.name, summarise(samples), as_json=options.json)
    return 0


async def _rounds(name: str, count: int) -> list[Sample]:
    samples: list[Sample] = []
    for number in range(1, count + 1):
        say(f"round {number} of {count}")
        samples += await BENCHMARKS[name](say)
    return samples


if __name__ == "__main__":
    raise SystemExit(main())
