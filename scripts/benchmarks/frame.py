"""Rounds, medians, and how they are printed."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from shared.terminal import print_json, print_table, say


@dataclass(frozen=True)
class Sample:
    """One measurement of one figure in one round, ours and the rival's in the same unit."""

    figure: str
    ours: float
    rival: float
    unit: str
    detail: dict[str, Any] = field(default_factory=dict)
    """What else was seen while it was measured; printed by --json only."""


@dataclass(frozen=True)
class Options:
    """Of one run. `pair` is what `outage` moves between, `seconds` how long `footprint` looks, `alarms` how many
    `broadcast` sends in each case, `nodes` how many `rollout` moves: 0 for each of its sizes."""

    rounds: int
    pair: str = "all"
    seconds: float = 120
    alarms: int = 100
    nodes: int = 0


Bench = Callable[[Options], Coroutine[Any, Any, list[Sample]]]


def repeat(run_round: Callable[[], Awaitable[list[Sample]]]) -> Bench:
    """A benchmark whose rounds have nothing in common."""

    async def run(options: Options) -> list[Sample]:
        samples: list[Sample] = []
        for number in range(1, options.rounds + 1):
            say(f"round {number} of {options.rounds}")
            samples += await run_round()
        return samples

    return run


def summarise(samples: list[Sample]) -> list[dict[str, Any]]:
    """The median of each side over the rounds, and the ratio of the medians."""
    figures = []
    for name in dict.fromkeys(sample.figure for sample in samples):
        rounds = [sample for sample in samples if sample.figure == name]
        ours = statistics.median(sample.ours for sample in rounds)
        rival = statistics.median(sample.rival for sample in rounds)
        figures.append(
            {
                "name": name,
                "ours": round(ours, 3),
                "rival": round(rival, 3),
                "ratio": round(ours / rival, 3) if rival else None,
                "unit": rounds[0].unit,
                "rounds": len(rounds),
                "detail": [sample.detail for sample in rounds if sample.detail],
            }
        )
    return figures


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }


def publish(bench: str, figures: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"bench": bench, "machine": machine(), "figures": figures})
        return
    rows = [
        [
            f["name"],
            f"{f['ours']} {f['unit']}",
            f"{f['rival']} {f['unit']}",
            str(f["ratio"]),
            str(f["rounds"]),
        ]
        for f in figures
    ]
    print_table(["FIGURE", "OURS", "RIVAL", "RATIO", "ROUNDS"], rows, empty="no figures")
