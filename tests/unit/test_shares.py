"""What a node does about the share that is wanted of it: the decision alone, then who carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.balancers import Balancers, Settling, Via
from agent.shares import Facts, Lower, Raise, Stay, decide_share, share_again, wanted_of
from agent.traffic import Traffic
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from agent.weighed import holds_weight
from agent.weighing import Weighing
from shared.clock import SystemClock
from shared.errors import UntrustedError
from shared.messages import Verdict
from shared.release import Release, parse_release
from shared.traffic import Step, TrafficWord
from tests.conftest import ManualClock
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest

RUNS, OTHER = "a" * 64, "b" * 64
RELEASE = parse_release(manifest().canonical())


def word(percent: int, **changes: object) -> TrafficWord:
    step = Step(id=f"{percent:08x}:a", percent=percent, since=0, release=RUNS, by="rollcall")
    frozen = str(changes.pop("frozen", ""))
    return TrafficWord(step=step.model_copy(update=changes), frozen=frozen)


def facts(percent: int, weight: int, **changes: Any) -> Facts:
    made = Facts(word=word(percent), weight=weight, release=RUNS, status=Verdict.GREEN)
    return replace(made, **changes)


def step_of(known: Facts) -> Step:
    assert known.word is not None
    assert known.word.step is not None
    return known.word.step


def test_down_at_once_and_up_only_when_it_is_well() -> None:
    assert decide_share(facts(25, 25)) == Stay()
    assert decide_share(facts(25, 100)) == Lower(step_of(facts(25, 100)))
    assert decide_share(facts(25, 5)) == Raise(step_of(facts(25, 5)))
    red = facts(25, 100, status=Verdict.RED, reds=("a:1:1",))
    assert isinstance(decide_share(red), Lower), "a node that is not well may always take less"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"freezes": ("frozen by a red of c",)}, "frozen by a red of c"),
        ({"word": word(25, frozen="eva froze all ratios")}, "eva froze all ratios"),
        ({"upgrade": "rolling_back"}, "an upgrade has the weight: rolling_back"),
        ({"in_hand": True}, "an order has the weight"),
        ({"release": OTHER}, "for another release"),
    ],
    ids=["a freeze", "the fleet's", "an upgrade", "an order", "another release"],
)
@pytest.mark.parametrize("weight", [5, 100])
def test_what_holds_a_share_holds_it_both_ways(
    change: dict[str, Any], words: str, weight: int
) -> None:
    held = decide_share(facts(25, weight, **change))
    assert isinstance(held, Stay)
    assert words in held.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reds": ("a:1:1",)}, "this node is red: a:1:1"),
        ({"status": Verdict.RED, "status_reason": "tree"}, "this node is red: tree"),
        ({"status": Verdict.UNKNOWN}, "this node is unknown"),
        ({"release": None, "word": word(25, release=None)}, "no release of this fleet"),
    ],
    ids=["own red", "red", "unknown", "no release"],
)
def test_a_node_that_is_not_well_takes_no_more(change: dict[str, Any], words: str) -> None:
    held = decide_share(facts(25, 5, **change))
    assert isinstance(held, Stay)
    assert words in held.reason


def test_without_a_word_nothing_changes() -> None:
    """The coordinator is away, or has nothing to say."""
    assert decide_share(replace(facts(25, 100), word=None)) == Stay()
    assert decide_share(replace(facts(25, 5), word=TrafficWord(frozen="why"))) == Stay()
    assert wanted_of(word(25), RUNS) == 25
    assert wanted_of(word(25), OTHER) is None
    assert wanted_of(None, RUNS) is None


@pytest.mark.parametrize(
    ("before", "known", "after"),
    [
        (100, word(100), 100),
        (100, None, 100),
        (100, TrafficWord(), 100),
        (100, word(30), 30),
        (25, word(25), 0),
        (25, word(100), 0),
        (25, None, 0),
        (25, TrafficWord(), 25),
        (25, word(25, release=OTHER), 25),
        (0, word(0), 0),
    ],
)
def test_after_a_restart_only_a_full_share_comes_back_without_peers(
    before: int, known: TrafficWord | None, after: int
) -> None:
    """What was on its way up is raised anew, once peers have looked at the new process (P2)."""
    now = facts(0, 0, word=known)
    assert share_again(before, now) == after
    if known is not None and known.step is not None and after < known.step.percent:
        assert isinstance(decide_share(now), Raise) == (known.step.release == RUNS)


def test_a_first_step_is_attested_though_there_is_nothing_to_raise() -> None:
    first = facts(1, 1, word=word(1, widens=True))
    step = step_of(first)
    assert decide_share(first) == Raise(step)
    assert decide_share(replace(first, attested=step.id)) == Stay()
    assert decide_share(replace(first, status=Verdict.RED)) == Stay()


@pytest.mark.parametrize(
    ("phase", "status", "holds"),
    [
        (Phase.STAGED, Status.ENTERED, "staged"),
        (Phase.DRAINED, Status.PASSED, "drained"),
        (Phase.GOOD, Status.ENTERED, "good"),
        (Phase.SOAKING, Status.ENTERED, ""),
        (Phase.SOAKING, Status.FAILED, "soaking"),
        (Phase.ROLLING_BACK, Status.ENTERED, "rolling_back"),
        (Phase.DONE, Status.ENTERED, ""),
        (Phase.DONE, Status.REQUESTED, "done"),
        (Phase.STUCK, Status.ENTERED, ""),
    ],
)
def test_an_upgrade_has_the_weight_until_it_soaks(phase: Phase, status: Status, holds: str) -> None:
    record = Record(
        upgrade="u", target=TARGET, label="x", phase=phase, status=status, began=0, entered=0
    )
    assert holds_weight(record) == holds
    assert holds_weight(None) == ""


@dataclass
class World:
    """A node whose peers sign when the test says so."""

    traffic: Traffic
    now: Facts
    asked: list[str] = field(default_factory=list)
    may_sign: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: str = ""

    def facts(self, said: TrafficWord | None, attested: str | None) -> Facts:
        return replace(self.now, word=said, weight=self.traffic.get(), attested=attested)

    def ready_probe_sha256(self) -> str:
        return "c" * 64

    async def signed(self, release: str | None) -> Release | None:
        return RELEASE

    async def collect(
        self, order: str, release: Release, ready_probe_sha256: str, timeout_s: float
    ) -> list[str]:
        self.asked.append(order)
        await self.may_sign.wait()
        if self.refusal:
            raise UntrustedError(self.refusal)
        return ["b"]


@dataclass
class Stage:
    world: World
    weighing: Weighing

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = SystemClock()
    askers = Balancers(clock, Settling(0.0, 0.0))
    traffic = await asyncio.to_thread(
        Traffic, tmp_path / "traffic.json", lambda: None, askers, clock
    )
    await traffic.set(10)
    world = World(traffic, facts(10, 10))
    weighing = Weighing(traffic, world, world, clock, lambda: None)
    task = asyncio.create_task(weighing.run())
    yield Stage(world, weighing)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_takes_more_once_all_have_signed_this_very_step(stage: Stage) -> None:
    stage.weighing.heard(word(40))
    await stage.until(lambda: stage.world.asked == [step_of(facts(40, 10)).id])
    assert stage.world.traffic.get() == 10
    assert "waits for its peers to look before it takes 40 %" in stage.weighing.waits
    stage.world.may_sign.set()
    await stage.until(lambda: stage.world.traffic.get() == 40)
    await stage.until(lambda: stage.weighing.waits == "")
    assert stage.weighing.wanted == 40


async def test_it_takes_less_at_once_also_while_it_asks_for_more(stage: Stage) -> None:
    stage.weighing.heard(word(40))
    await stage.until(lambda: len(stage.world.asked) == 1)
    stage.weighing.heard(word(5))
    await stage.until(lambda: stage.world.traffic.get() == 5)
    assert not stage.world.may_sign.is_set()


@pytest.mark.parametrize(
    "change", [{"freezes": ("a red of c",)}, {"upgrade": "rolling_back"}, {"reds": ("a:1:1",)}]
)
async def test_what_happens_while_the_peers_look_counts(
    stage: Stage, change: dict[str, Any]
) -> None:
    """Nobody stirred it: what holds when it is to be done decides."""
    stage.weighing.heard(word(40))
    await stage.until(lambda: len(stage.world.asked) == 1)
    stage.world.now = replace(stage.world.now, **change)
    stage.world.may_sign.set()
    stage.weighing.stir()
    await stage.until(lambda: "waits for its peers" not in stage.weighing.waits)
    assert stage.world.traffic.get() == 10


async def test_a_lost_coordinator_changes_nothing(stage: Stage) -> None:
    stage.weighing.heard(word(40))
    await stage.until(lambda: len(stage.world.asked) == 1)
    stage.weighing.heard(None)
    await stage.until(lambda: stage.weighing.waits == "")
    stage.world.may_sign.set()
    await asyncio.sleep(0.05)
    assert stage.world.traffic.get() == 10
    assert stage.weighing.tag == ""


async def test_who_did_not_sign_is_named_and_asked_again(stage: Stage) -> None:
    stage.world.refusal = "not attested by the whole quorum (c: no answer)"
    stage.world.may_sign.set()
    stage.weighing.heard(word(40))
    await stage.until(lambda: "c: no answer" in stage.weighing.waits)
    stage.world.refusal = ""
    await stage.until(lambda: stage.world.traffic.get() == 40)


async def test_a_change_that_lost_its_reason_while_it_waited_for_its_turn_is_none(
    stage: Stage,
) -> None:
    """A rollback sets the weight to 0 and holds it; a raise that was decided before must not undo that."""
    allowed = [True, False]
    traffic = stage.world.traffic
    done = await asyncio.gather(
        traffic.set_while(50, lambda: allowed[0]),
        traffic.set(0),
        traffic.set_while(50, lambda: allowed[1]),
    )
    assert list(done) == [True, None, False]
    assert traffic.get() == 0


def test_only_who_asks_for_the_weight_makes_steps_worth_while(clock: ManualClock) -> None:
    askers = Balancers(clock, Settling(2.0, 15.0))
    askers.open(weights=False)
    askers.answered(Via.READYZ, "10.0.0.1", "200", clock.monotonic())
    assert not askers.ask_for_weights(), "that door is shut"
    askers = Balancers(clock, Settling(2.0, 15.0))
    askers.open()
    assert askers.ask_for_weights(), "nobody knows yet who will"
    clock.advance(3)
    assert not askers.ask_for_weights()
    askers.answered(Via.AGENT_CHECK, "10.0.0.1", "up 100%", clock.monotonic())
    assert askers.ask_for_weights()
    clock.advance(120)
    assert not askers.ask_for_weights(), "gone"
