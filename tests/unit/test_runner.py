"""The runner with steps that a test controls: killed anywhere, it goes on from the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from agent.layout import Layout
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.decide import Nothing, Start, Wait, admit
from agent.upgrade.journal import Journal
from agent.upgrade.lastgood import note_good, raise_bound, read_last_good
from agent.upgrade.phases import AFTER_STOP, FORWARD, GOING_BACK, Phase
from agent.upgrade.runner import Runner
from agent.upgrade.steps.base import Evidence, Step
from shared.clock import SystemClock
from shared.errors import ConflictError
from shared.release import parse_release
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest


@dataclass
class World:
    """What the fake steps did, in order, and where one of them should hang or fail."""

    did: list[Phase] = field(default_factory=list)
    hang: Phase | None = None
    fail: set[Phase] = field(default_factory=set)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)


class FakeStep:
    def __init__(self, phase: Phase, world: World) -> None:
        self.phase, self.world = phase, world

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        self.world.did.append(self.phase)
        if self.world.hang is self.phase:
            self.world.hanging.set()
            await asyncio.Event().wait()
        if self.phase in self.world.fail:
            raise StepFailed(f"{self.phase} was told to fail")
        return {"ran": str(self.phase)}


class NoReleases:
    async def release(self, release: str) -> None:
        return None

    async def kept(self, release: str | None) -> None:
        return None


@dataclass
class FewDeps:
    layout: Layout
    clock: SystemClock = field(default_factory=SystemClock)
    releases: NoReleases = field(default_factory=NoReleases)
    progress: Callable[[str], None] = lambda text: None


def runner(path: Path, world: World) -> Runner:
    steps = {phase: FakeStep(phase, world) for phase in (*FORWARD, *GOING_BACK)}
    journal = Journal(path)
    journal.load()
    deps = cast(Deps, FewDeps(Layout(path.parent)))
    return Runner(deps, journal, lambda: None, cast("dict[Phase, Step]", steps))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upgrade.log"


def phase(runner: Runner) -> Phase:
    assert runner.record is not None
    return runner.record.phase


async def reload(path: Path, world: World) -> Runner:
    return await asyncio.to_thread(runner, path, world)


async def test_all_phases_in_order(path: Path) -> None:
    world = World()
    moved = await reload(path, world)
    await moved.begin(TARGET, "x")
    assert world.did == list(FORWARD)
    assert phase(moved) is Phase.DONE
    with pytest.raises(ConflictError):
        await (await reload(path.with_name("other"), world)).roll_back("nothing there")


@pytest.mark.parametrize("where", FORWARD)
async def test_a_failed_phase_drops_the_order_or_rolls_back(path: Path, where: Phase) -> None:
    world = World(fail={where})
    moved = await reload(path, world)
    await moved.begin(TARGET, "x")
    rolled = where in AFTER_STOP
    assert (world.did[-1] is Phase.ROLLING_BACK) == rolled
    assert (world.did[-1] is Phase.REOPENING) == (where is Phase.DRAINED)
    assert phase(moved) is (Phase.ROLLED_BACK if rolled else Phase.DROPPED)
    assert moved.record is not None
    assert "was told to fail" in moved.record.reason
    with pytest.raises(ConflictError, match="nothing to roll back"):
        await moved.roll_back("twice")


async def test_a_rollback_that_fails_is_stuck_with_both_reasons(path: Path) -> None:
    world = World(fail={Phase.PROVEN, Phase.ROLLING_BACK})
    moved = await reload(path, world)
    await moved.begin(TARGET, "x")
    assert phase(moved) is Phase.STUCK
    assert moved.record is not None
    assert "proven" in moved.record.reason
    assert "rolling_back" in moved.record.reason


CAUSES = {Phase.ROLLING_BACK: {Phase.ATTESTED}, Phase.REOPENING: {Phase.DRAINED}}
ENDS = {Phase.ROLLING_BACK: Phase.ROLLED_BACK, Phase.REOPENING: Phase.DROPPED}


@pytest.mark.parametrize("where", [*FORWARD, *GOING_BACK])
async def test_killed_in_a_phase_it_enters_that_phase_again(path: Path, where: Phase) -> None:
    world = World(hang=where, fail=CAUSES.get(where, set()))
    first = asyncio.create_task((await reload(path, world)).begin(TARGET, "x"))
    await world.hanging.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.hang = None
    again = await reload(path, world)
    assert phase(again) is where
    await again.resume()
    assert world.did.count(where) == 2
    assert all(world.did.count(other) == 1 for other in set(world.did) - {where})
    assert phase(again) is ENDS.get(where, Phase.DONE)


@pytest.mark.parametrize("where", FORWARD)
async def test_an_operator_can_take_it_back_in_any_phase(path: Path, where: Phase) -> None:
    world = World(hang=where)
    moved = await reload(path, world)
    upgrade = asyncio.create_task(moved.begin(TARGET, "x"))
    await world.hanging.wait()
    record = await moved.roll_back("an operator asked")
    await upgrade
    assert record.phase is (Phase.ROLLED_BACK if where in AFTER_STOP else Phase.DROPPED)
    assert record.reason == "an operator asked"


@pytest.mark.parametrize("where", [Phase.STAGED, Phase.DRAINED, Phase.RESTARTED, Phase.SOAKING])
async def test_an_operator_can_take_it_back_when_no_agent_runs(path: Path, where: Phase) -> None:
    world = World(hang=where)
    first = asyncio.create_task((await reload(path, world)).begin(TARGET, "x"))
    await world.hanging.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    record = await (await reload(path, world)).roll_back("the agent does not come up")
    assert record.phase is (Phase.ROLLED_BACK if where in AFTER_STOP else Phase.DROPPED)


async def test_a_surprise_in_a_step_is_a_failed_phase(path: Path) -> None:
    world = World()
    moved = await reload(path, world)
    world.did = cast(Any, None)
    await moved.begin(TARGET, "x")
    assert phase(moved) is Phase.DROPPED
    assert moved.record is not None
    assert "AttributeError" in moved.record.reason


async def test_a_finished_upgrade_can_be_taken_back_once(path: Path) -> None:
    world = World()
    await (await reload(path, world)).begin(TARGET, "x")
    later = await reload(path, world)
    record = await later.roll_back("it was not good after all")
    assert record.phase is Phase.ROLLED_BACK
    with pytest.raises(ConflictError):
        await later.roll_back("again")


async def test_a_finished_upgrade_is_not_taken_back_below_its_floor(path: Path) -> None:
    """What failed before its end goes back whatever the floor; what was proven does not."""
    floor = {"name": "2026.8.1", "openclaw": "2026.8.1", "created": 0.0}
    release = parse_release(manifest(openclaw="2026.9.6", floor=floor).canonical())

    def proven() -> None:
        note_good(path.parent, release.id, 1.0)
        raise_bound(path.parent, release)

    await (await reload(path, World())).begin(TARGET, "x")
    await asyncio.to_thread(proven)
    with pytest.raises(ConflictError, match="no way back below"):
        await (await reload(path, World())).roll_back("I want the old one")
    failing = path.with_name("second.log")
    moved = await reload(failing, World(fail={Phase.SOAKING}))
    await moved.begin(TARGET, "x")
    assert phase(moved) is Phase.ROLLED_BACK


def test_the_bound_is_the_newest_that_was_proven(tmp_path: Path) -> None:
    newer, older = (
        parse_release(manifest(openclaw=version).canonical())
        for version in ("2026.9.6", "2026.8.1")
    )
    for release in (newer, older):
        note_good(tmp_path, release.id, 1.0)
        raise_bound(tmp_path, release)
    good = read_last_good(tmp_path)
    assert good is not None
    assert good.bound is not None
    assert (good.release, good.bound.release) == (older.id, newer.id)


async def test_the_same_order_is_not_taken_twice(path: Path) -> None:
    moved = await reload(path, World(fail={Phase.STAGED}))
    await moved.begin(TARGET, "x")
    assert isinstance(admit(TARGET, None, moved.record, [], []), Nothing)
    later: Any = admit(
        TARGET.model_copy(update={"order": "b1b2c3d4:canary"}), None, moved.record, [], []
    )
    assert isinstance(later, Start)


def test_what_keeps_a_pending_upgrade_from_beginning() -> None:
    assert admit(TARGET, None, None, ["frozen by a red of b"], []) == Wait("frozen by a red of b")
    own = admit(TARGET, None, None, [], ["a:1:1"])
    assert isinstance(own, Wait)
    assert isinstance(admit(TARGET, TARGET.release, None, [], []), Nothing)
    assert isinstance(admit(None, None, None, [], []), Nothing)
    assert admit(TARGET, None, None, [], []) == Start(TARGET)


@pytest.mark.parametrize("fail", [None, Phase.DRAINED, Phase.RESTARTED, Phase.SOAKING])
async def test_from_every_prefix_of_a_journal_it_comes_to_an_end(
    path: Path, fail: Phase | None
) -> None:
    """Fault 8: whatever line was the last one that got to the disk."""
    whole = path.with_name("whole.log")
    moved = await reload(whole, World(fail={fail} if fail else set()))
    await moved.begin(TARGET, "x")
    lines = (await asyncio.to_thread(whole.read_bytes)).splitlines(keepends=True)
    ends = set()
    for count in range(1, len(lines) + 1):
        await asyncio.to_thread(path.write_bytes, b"".join(lines[:count]))
        again = await reload(path, World())
        await again.resume()
        assert again.record is not None
        assert again.record.over
        ends.add(phase(again))
    assert ends == {Phase.DONE, phase(moved)}
