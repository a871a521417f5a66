"""The order of a drain and of its undoing: load balancers first, the gateway second, and back the other way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config import DrainPolicy
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.drain import Drain
from agent.upgrade.steps.reopen import Reopen
from shared.errors import CommandError
from tests.conftest import ManualClock


@dataclass
class World:
    """A gateway of 2026.9.6 whose command line and weight only note what is asked of them."""

    clock: ManualClock
    did: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    blockers: list[list[str]] = field(default_factory=list)
    alive: bool = True
    answers: bool = True
    policy: DrainPolicy = DrainPolicy.ABORT

    async def set(self, percent: int) -> None:
        self.did.append(f"weight {percent}")

    async def leave(self) -> list[str]:
        self.did.append("told")
        return self.untold

    async def run_json(self, *words: str, timeout_s: float) -> tuple[None, dict[str, Any]]:
        self.did.append(words[1])
        if not self.answers:
            raise CommandError("the gateway does not answer")
        if words[1] == "suspend" and self.blockers:
            waiting = self.blockers.pop(0)
            return None, {"status": "busy", "blockers": [{"message": each} for each in waiting]}
        return None, {"status": "ready", "suspensionId": "s1"}

    async def is_alive(self) -> bool | None:
        return True if self.alive else None

    def context(self) -> Context:
        facts = {"version_before": "2026.9.6", "weight": 40, "moves": True}
        upgrade = SimpleNamespace(drain_timeout=5.0, drain_policy=self.policy)
        deps = SimpleNamespace(
            clock=self.clock,
            config=SimpleNamespace(upgrade=upgrade),
            layout=SimpleNamespace(current=Path("/nowhere")),
            openclaw=lambda tree: self,
            progress=lambda text: None,
            service=SimpleNamespace(alive=self.is_alive),
            weight=self,
        )
        record = SimpleNamespace(
            upgrade="u1", fact=lambda phase, name: facts.get(name) if phase in FACTS else None
        )
        return cast(Context, _View(deps, record))


FACTS = (Phase.CLAIMED, Phase.FROZEN)


@dataclass
class _View:
    deps: Any
    record: Any
    moves: bool = True


async def finish(clock: ManualClock, work: Callable[[], Any]) -> Any:
    task = asyncio.ensure_future(work())
    for _ in range(200):
        if task.done():
            break
        await asyncio.sleep(0)
        clock.advance(0.5)
    return await task


async def test_the_gateway_is_closed_only_after_the_load_balancers_know(clock: ManualClock) -> None:
    world = World(clock, untold=["10.0.0.2 (agent-check)"], blockers=[["answering alice"]])
    evidence = await finish(clock, lambda: Drain().act(world.context()))
    assert world.did == ["told", "suspend", "suspend"]
    assert evidence == {
        "drained": True,
        "left": [],
        "suspended": True,
        "untold": ["10.0.0.2 (agent-check)"],
    }


async def test_a_gateway_that_does_not_run_needs_no_wait(clock: ManualClock) -> None:
    world = World(clock, alive=False)
    evidence = await Drain().done(world.context())
    assert (world.did, evidence) == (
        ["weight 0"],
        {"drained": True, "left": [], "suspended": False},
    )


async def test_the_deadline_is_for_the_work_in_hand(clock: ManualClock) -> None:
    world = World(clock, blockers=[["answering alice"]] * 100)
    with pytest.raises(StepFailed, match="still in hand after 5 s: answering alice"):
        await finish(clock, lambda: Drain().act(world.context()))
    assert world.did[0] == "told"
    forced = World(clock, blockers=[["answering alice"]] * 100, policy=DrainPolicy.FORCE)
    evidence = await finish(clock, lambda: Drain().act(forced.context()))
    assert (evidence["drained"], evidence["left"]) == (False, ["answering alice"])


@pytest.mark.parametrize("answers", [True, False])
async def test_it_is_opened_before_traffic_comes_back(clock: ManualClock, answers: bool) -> None:
    world = World(clock, answers=answers)
    evidence = await Reopen().act(world.context())
    closing = ["suspend", "resume"] if answers else ["suspend"]
    assert world.did == [*closing, "weight 40"]
    assert evidence == {"weight": 40, "resumed": answers}
