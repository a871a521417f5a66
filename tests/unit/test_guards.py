"""Guards that hold the present against the past, the baseline they use, and what a soak makes of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config import AgentConfig
from agent.layout import Layout
from agent.readiness.baseline import Baseline, take_baseline
from agent.readiness.guards.growth import GrowthGuard
from agent.readiness.guards.throughput import ThroughputGuard
from agent.readiness.history import History
from agent.remembering import Remembering
from agent.store import Store
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from agent.upgrade.steps.soak import Soak, longest_end
from shared.messages import Verdict
from shared.readiness import Check, CheckStatus
from shared.release import parse_release
from tests.conftest import ManualClock
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest

MIB = 1 << 20
T0 = 1_800_000_000.0
DAY_S = 86400.0
CONFIG = AgentConfig.model_validate(
    {"gateway": {"home": "/h", "port": 1}, "openclaw": {"node": "/n", "npm": "/m"}}
)


def memory(mib: float, seconds: float, *, since: float = T0) -> History:
    history = History()
    note_memory(history, mib, seconds, since=since)
    return history


def note_memory(history: History, mib: float, seconds: float, *, since: float) -> None:
    for place in range(int(seconds / 5) + 1):
        history.note("gateway_started_at", since + place * 5, since)
        history.note("memory_bytes", since + place * 5, mib * MIB)


def growth(baseline: Baseline | None) -> GrowthGuard:
    return GrowthGuard(lambda: baseline, times=2.0, warmup_s=90, window_s=150)


BASELINE = Baseline(at=T0 - 60, memory_bytes=400.0 * MIB)


def test_memory_without_a_baseline_has_nothing_to_be_held_against() -> None:
    for baseline in (None, Baseline(at=T0)):
        check = growth(baseline).judge(memory(4000, 600), T0)
        assert (check.status, check.inconclusive) == (CheckStatus.PASS, False)
        assert "no memory to compare with" in check.reason


def test_memory_is_held_against_the_baseline_once_the_gateway_is_warm() -> None:
    young = growth(BASELINE).judge(memory(900, 200), T0)
    assert (young.status, young.inconclusive) == (CheckStatus.WARN, True)
    assert young.reason == "has seen 110 s of 150 s"
    fine = growth(BASELINE).judge(memory(790, 300), T0)
    assert (fine.status, fine.observed, fine.limit) == (CheckStatus.PASS, 790 * MIB, 800 * MIB)
    much = growth(BASELINE).judge(memory(900, 300), T0)
    assert much.status is CheckStatus.FAIL
    assert much.reason == (
        "the gateway uses 900 MiB; before the upgrade it was 400 MiB, and 2 times that is the limit"
    )


def test_memory_that_has_failed_must_come_back_clearly() -> None:
    guard, history = growth(BASELINE), memory(810, 300)
    assert guard.judge(history, T0).status is CheckStatus.FAIL
    for mib, status in ((790, CheckStatus.FAIL), (750, CheckStatus.PASS)):
        newest = history.newest("memory_bytes")
        assert newest is not None
        for place in range(1, 60):
            history.note("gateway_started_at", newest.at + place * 5, T0)
            history.note("memory_bytes", newest.at + place * 5, mib * MIB)
        assert guard.judge(history, T0).status is status


def days(
    *, before: float, asked_before: float, now: float, asked: float, count: int = 3
) -> History:
    """The same hour on so many days, and the last 20 minutes."""
    history = History()
    for day in range(count, 0, -1):
        for minute in range(-30, 31):
            at = T0 - day * DAY_S + minute * 60
            history.note("tasks_per_minute", at, before)
            history.note("tasks_asked_per_minute", at, asked_before)
    for minute in range(-20, 1):
        history.note("tasks_per_minute", T0 + minute * 60, now)
        history.note("tasks_asked_per_minute", T0 + minute * 60, asked)
    return history


def throughput(history: History, guard: ThroughputGuard | None = None) -> Check:
    return (guard or ThroughputGuard(0.5)).judge(history, T0)


def test_throughput_is_held_against_the_same_hour_of_earlier_days() -> None:
    check = throughput(days(before=120, asked_before=125, now=40, asked=130))
    assert (check.status, check.observed, check.limit) == (CheckStatus.FAIL, 40, 60)
    assert check.reason == (
        "40 tasks a minute are done; this hour of earlier days had 120, and 130 are asked for"
    )
    fine = throughput(days(before=120, asked_before=125, now=70, asked=130))
    assert (fine.status, fine.reason) == (CheckStatus.PASS, "")


@pytest.mark.parametrize(
    ("history", "word"),
    [
        (days(before=120, asked_before=125, now=10, asked=12), "are asked for"),
        (days(before=120, asked_before=125, now=10, asked=130, count=0), "no earlier day"),
        (days(before=1, asked_before=1, now=0, asked=1), "too few"),
        (History(), "no tasks"),
    ],
)
def test_throughput_passes_where_there_is_nothing_to_compare(history: History, word: str) -> None:
    check = throughput(history)
    assert (check.status, check.inconclusive) == (CheckStatus.PASS, False)
    assert word in check.reason


def test_throughput_of_another_hour_of_the_day_is_no_measure() -> None:
    history = History()
    for minute in range(-30, 31):
        at = T0 - DAY_S - 4 * 3600 + minute * 60
        history.note("tasks_per_minute", at, 500)
        history.note("tasks_asked_per_minute", at, 500)
    for minute in range(-20, 1):
        history.note("tasks_per_minute", T0 + minute * 60, 10)
        history.note("tasks_asked_per_minute", T0 + minute * 60, 600)
    assert "no earlier day" in throughput(history).reason


def test_throughput_that_has_just_begun_to_be_counted_is_inconclusive() -> None:
    history = days(before=120, asked_before=125, now=0, asked=0)
    later = T0 + DAY_S
    for minute in range(3):
        history.note("tasks_per_minute", later + minute * 60, 10)
        history.note("tasks_asked_per_minute", later + minute * 60, 200)
    check = throughput(history)
    assert (check.status, check.inconclusive) == (CheckStatus.WARN, True)


def test_throughput_that_has_failed_must_come_back_clearly() -> None:
    guard, history = ThroughputGuard(0.5), days(before=120, asked_before=100, now=50, asked=130)
    assert throughput(history, guard).status is CheckStatus.FAIL
    for value, status in ((61, CheckStatus.FAIL), (65, CheckStatus.PASS)):
        newest = history.newest("tasks_per_minute")
        assert newest is not None
        for minute in range(1, 21):
            history.note("tasks_per_minute", newest.at + minute * 60, value)
            history.note("tasks_asked_per_minute", newest.at + minute * 60, 130)
        assert throughput(history, guard).status is status


def test_a_baseline_is_the_last_hour_of_a_warm_gateway() -> None:
    history = memory(2000, 85)
    for place in range(18, 120):
        history.note("gateway_started_at", T0 + place * 5, T0)
        history.note("memory_bytes", T0 + place * 5, 700.0 * MIB)
        history.note("tasks_per_minute", T0 + place * 5, float(place % 5))
    history.note("new_errors", T0 + 590, 3.0)
    taken = take_baseline(history, "a" * 64, T0 + 600, 90)
    assert taken.memory_bytes == 700 * MIB
    assert taken.tasks_per_minute == 2
    assert taken.start_p95_ms is None
    assert (taken.new_errors, taken.release, taken.at) == (3, "a" * 64, T0 + 600)


def record(soak_s: float, entered: float, **frozen: Any) -> Record:
    return Record(
        upgrade="u",
        target=TARGET.model_copy(update={"soak_s": soak_s}),
        label="x",
        phase=Phase.SOAKING,
        status=Status.ENTERED,
        began=entered,
        entered=entered,
        evidence={Phase.FROZEN: frozen},
    )


async def test_the_baseline_comes_back_from_the_journal(tmp_path: Path) -> None:
    store, clock = await Store.open(tmp_path / "agent.db"), ManualClock(T0 + 600)
    records: list[Record | None] = [None]
    remembering = Remembering(CONFIG, store, clock, lambda: records[0])
    note_memory(remembering.history, 700, 590, since=T0)
    assert remembering.baseline() is None
    records[0] = record(5, T0, baseline=remembering.take_baseline("a" * 64))
    found = remembering.baseline()
    assert found is not None
    assert (found.memory_bytes, found.release) == (700 * MIB, "a" * 64)
    assert remembering.baseline() is found
    for broken in ({"at": "then"}, 7, None):
        records[0] = record(5, T0, baseline=broken)
        assert remembering.baseline() is None
    await store.close()


@dataclass
class Soaking:
    """A node that soaks; the test says what its readiness is."""

    home: Path
    soak_s: float = 60
    checks: list[Check] = field(default_factory=list)
    status: Verdict = Verdict.GREEN
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock(T0)
        release = parse_release(manifest(openclaw="2026.9.6").canonical())
        deps = SimpleNamespace(
            config=CONFIG,
            clock=self.clock,
            readiness=SimpleNamespace(document=self._document),
            progress=self.said.append,
            layout=Layout(self.home),
        )
        self.context = Context(cast(Deps, deps), record(self.soak_s, T0), release)

    def _document(self) -> Any:
        reason = "memory: too much" if self.status is Verdict.RED else ""
        return SimpleNamespace(status=self.status, reason=reason, checks=self.checks)

    def start(self) -> asyncio.Task[dict[str, Any]]:
        return asyncio.create_task(Soak().act(self.context))

    async def run(self, task: asyncio.Task[dict[str, Any]], seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            await asyncio.sleep(0)
            self.clock.advance(0.5)
        for _ in range(50):
            await asyncio.sleep(0.002)
            if task.done():
                break


def unsure(reason: str) -> Check:
    return Check(id="leak", status=CheckStatus.WARN, reason=reason, inconclusive=True)


async def test_a_soak_ends_when_its_time_is_over(tmp_path: Path) -> None:
    node = Soaking(tmp_path)
    task = node.start()
    await node.run(task, 59)
    assert not task.done()
    await node.run(task, 2)
    assert (await task)["soaked_s"] == pytest.approx(60, abs=1)
    assert "inconclusive" not in await task


async def test_an_inconclusive_guard_prolongs_the_soak_and_it_says_so(tmp_path: Path) -> None:
    node = Soaking(tmp_path, checks=[unsure("has seen 40 s of 150 s")])
    task = node.start()
    await node.run(task, 100)
    assert not task.done()
    assert node.said[-1] == "soaking on: leak has seen 40 s of 150 s"
    node.checks = []
    await node.run(task, 2)
    assert (await task)["soaked_s"] == pytest.approx(100, abs=2)


async def test_a_guard_that_never_knows_does_not_prolong_it_for_ever(tmp_path: Path) -> None:
    node = Soaking(tmp_path, checks=[unsure("no memory of the gateway was read yet")])
    assert longest_end(node.context) == T0 + 300, "what a leak guard needs, and a quarter more"
    task = node.start()
    await node.run(task, 298)
    assert not task.done()
    await node.run(task, 4)
    assert (await task)["inconclusive"] == ["leak"]
    long = Soaking(tmp_path, soak_s=1000)
    assert longest_end(long.context) == T0 + 2000


async def test_a_rollout_without_a_soak_waits_for_no_guard(tmp_path: Path) -> None:
    node = Soaking(tmp_path, soak_s=0, checks=[unsure("has seen 0 s of 150 s")])
    task = node.start()
    await node.run(task, 1)
    assert await task == {"soaked_s": 0.0, "inconclusive": ["leak"]}


async def test_a_guard_that_fails_while_the_soak_is_prolonged_is_a_red(tmp_path: Path) -> None:
    node = Soaking(tmp_path, checks=[unsure("has seen 40 s of 150 s")])
    task = node.start()
    await node.run(task, 80)
    node.status, node.checks = Verdict.RED, []
    await node.run(task, 12)
    with pytest.raises(StepFailed, match="red while soaking: memory: too much"):
        await task
