"""The share with which a node begins on a release that is good: the first step where somebody asks for weights."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.settle import Settle
from tests.conftest import ManualClock

RELEASE = "a" * 64


@dataclass
class World:
    """`before` is the weight in the bookmark, `share` what the rollout begins with."""

    home: Path
    clock: ManualClock
    before: int | None = 100
    share: int = 1
    asks: bool = True
    moves: bool = True
    reds: list[str] = field(default_factory=list)
    fleet_frozen: str = ""
    weights: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def set(self, percent: int) -> None:
        self.weights.append(percent)

    def asked(self) -> bool:
        return self.asks

    def held(self) -> str:
        return self.fleet_frozen

    def frozen(self) -> str | None:
        return self.reds[0] if self.reds else None

    def fact(self, phase: Phase, name: str) -> int | None:
        return self.before if (phase, name) == (Phase.FROZEN, "weight") else None

    def context(self) -> Context:
        deps = SimpleNamespace(
            alarm=self,
            weight=self,
            clock=self.clock,
            progress=self.said.append,
            layout=SimpleNamespace(home=self.home),
        )
        target = SimpleNamespace(release=RELEASE, share=self.share)
        record = SimpleNamespace(fact=self.fact, target=target)
        return cast(Context, _View(deps, record, self.moves))


@dataclass
class _View:
    deps: Any
    record: Any
    moves: bool


@pytest.mark.parametrize(
    ("change", "weight"),
    [
        ({}, 1),
        ({"asks": False}, 100),
        ({"before": None}, 1),
        ({"before": 0}, 0),
        ({"before": 40, "share": 50}, 40),
        ({"before": 40, "asks": False}, 40),
        ({"moves": False}, 100),
        ({"share": 100}, 100),
    ],
    ids=[
        "asked",
        "nobody asks",
        "the first release",
        "an operator's nothing",
        "never more than before",
        "as it was",
        "the gateway ran on",
        "no steps",
    ],
)
async def test_the_first_share(
    tmp_path: Path, clock: ManualClock, change: dict[str, Any], weight: int
) -> None:
    world = World(tmp_path, clock, **change)
    assert await Settle().act(world.context()) == {"weight": weight}
    assert world.weights == [weight]
    assert json.loads((tmp_path / "last-good.json").read_text())["release"] == RELEASE


@pytest.mark.parametrize("who", ["a red of c", "eva froze all ratios"])
async def test_no_traffic_before_what_holds_it_is_over(
    tmp_path: Path, clock: ManualClock, who: str
) -> None:
    world = World(tmp_path, clock)
    if who.startswith("a red"):
        world.reds = [who]
    else:
        world.fleet_frozen = who
    task = asyncio.create_task(Settle().act(world.context()))
    for _ in range(20):
        clock.advance(1)
        await asyncio.sleep(0)
    assert (world.weights, task.done()) == ([], False)
    assert who in world.said[-1]
    world.reds, world.fleet_frozen = [], ""
    while not task.done():
        clock.advance(1)
        await asyncio.sleep(0.001)
    assert world.weights == [1]
