"""What a node measures of its own day, and the work that it has in hand as a worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.openclaw.tasks import Task, Tasks
from agent.readiness.chronicle import Chronicle
from agent.readiness.history import History
from agent.readiness.probes.throughput import ends_of
from agent.service.base import Pid
from agent.store import Store
from agent.vitals import LOOK_EVERY_S, Vitals
from agent.worker import BUILD_DIGITS, Worker
from agent.worker import LOOK_EVERY_S as LOOK_S
from agent.workerconfig import WorkerConfig
from shared.errors import CommandError
from shared.messages import Verdict
from shared.nodes import Cohort, CohortIntent, CohortState
from shared.readiness import Check, CheckStatus, ReadinessDocument
from tests.conftest import ManualClock
from tests.unit.test_document import published

RELEASE = "abcdef0123456789" * 4
BUILD = RELEASE[:BUILD_DIGITS]


class Node:
    """What Vitals looks at; each look is `LOOK_EVERY_S` after the one before."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.history = clock, History()
        self.up, self.settled = True, True
        self.pid: Pid | None = Pid(1, 1.0)
        self.vitals = Vitals(self.history, clock, self.document, lambda: self.settled, self.alive)

    def document(self) -> ReadinessDocument:
        status = CheckStatus.PASS if self.up else CheckStatus.FAIL
        check = Check(id="gateway", status=status, at=1.0)
        verdict = Verdict.GREEN if self.up else Verdict.RED
        return published(checks=[check], status=verdict).document

    async def alive(self) -> Pid | None:
        return self.pid

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.vitals.look()
            self.clock.advance(LOOK_EVERY_S)


@pytest.fixture
def node(clock: ManualClock) -> Node:
    return Node(clock)


async def test_uptime_is_the_share_of_looks_at_which_it_served(node: Node) -> None:
    await node.look(380)
    node.up = False
    await node.look(20)
    found = node.vitals.health()
    assert (found.uptime, found.ready, found.window_s) == (95.0, 95.0, 4000.0)
    assert (found.error_rate, found.start_p95_ms) == (None, None), "nobody asked for work"


async def test_a_young_node_is_not_judged_by_one_look(node: Node) -> None:
    """The rest of the hour is taken as good."""
    node.up = False
    await node.look(9)
    found = node.vitals.health()
    assert (found.uptime, found.window_s) == (97.5, 90.0)


async def test_what_is_older_than_a_day_counts_no_more(node: Node) -> None:
    node.up = False
    await node.look(10)
    node.clock.advance(86400 + 600)
    node.up = True
    await node.look(10)
    assert node.vitals.health().uptime == 100.0


async def test_a_planned_outage_is_no_outage_and_its_restart_no_crash(node: Node) -> None:
    await node.look(3)
    node.settled, node.up, node.pid = False, False, None
    await node.look(20)
    node.settled, node.up, node.pid = True, True, Pid(2, 2.0)
    await node.look(3)
    found = node.vitals.health()
    assert (found.uptime, found.crashes) == (100.0, 0)


async def test_another_process_is_a_crash_whether_it_was_seen_down_or_not(node: Node) -> None:
    await node.look(2)
    node.pid = Pid(2, 2.0)
    await node.look(1)
    node.pid = None
    await node.look(3)
    node.pid = Pid(2, 3.0)
    await node.look(2)
    assert node.vitals.health().crashes == 2
    node.vitals.expect_restart()
    node.pid = Pid(4, 4.0)
    await node.look(2)
    assert node.vitals.health().crashes == 2, "somebody asked for that restart"


async def test_the_day_is_kept_over_a_restart_of_the_agent(
    node: Node, tmp_path: Path, clock: ManualClock
) -> None:
    """Also what is older than the hour that is kept in full."""
    store = await Store.open(tmp_path / "agent.db")
    try:
        chronicle = Chronicle(node.history, store, clock)
        await node.look(2)
        node.pid = Pid(2, 2.0)
        node.up = False
        await node.look(2)
        node.up = True
        for _ in range(4):
            await node.look(200)
            await chronicle.save()
        again = Node(clock)
        await Chronicle(again.history, store, clock).load()
        found = again.vitals.health()
    finally:
        await store.close()
    assert found.crashes == 1
    assert (found.window_s, found.uptime) == (8040.0, round(100 * 802 / 804, 3))


async def test_errors_and_waits_are_of_the_last_quarter_of_an_hour(node: Node) -> None:
    await node.look(1)
    for name, value in (("tasks_ended_per_minute", 100.0), ("tasks_failed_per_minute", 100.0)):
        node.history.note(name, node.clock.now(), value)
    node.clock.advance(1000)
    now = node.clock.now()
    for at, ended, failed, wait in ((now - 60, 10.0, 1.0, 100.0), (now, 30.0, 1.0, 300.0)):
        node.history.note("tasks_ended_per_minute", at, ended)
        node.history.note("tasks_failed_per_minute", at, failed)
        node.history.note("start_p95_ms", at, wait)
    found = node.vitals.health()
    assert (found.error_rate, found.start_p95_ms) == (5.0, 200.0)


async def test_the_numbers_are_made_once_a_minute(node: Node) -> None:
    assert node.vitals.health().window_s == 0
    await node.look(1)
    first = node.vitals.health()
    assert first.window_s == LOOK_EVERY_S, "after the first look there is something to say"
    await node.look(3)
    assert node.vitals.health() is first
    node.clock.advance(60)
    assert node.vitals.health().window_s == 40.0


def some_tasks(*statuses: str) -> Tasks:
    listed = tuple(
        Task(f"{n}", f"{n}", status, 10.0 + n, 20.0, None, None if status in WORKING else 20.0)
        for n, status in enumerate(statuses)
    )
    waiting = tuple(task for task in listed if task.status == "queued")
    return Tasks(60.0, 0.0, listed, waiting)


WORKING = {"running", "queued"}


def test_cancelled_tasks_have_not_failed() -> None:
    tasks = some_tasks("succeeded", "completed", "failed", "timed_out", "cancelled", "running")
    assert ends_of(tasks) == (5.0, 2.0)


class Bench:
    """A worker whose gateway, freeze and release a test sets."""

    def __init__(self, folder: Path, clock: ManualClock, **config: str) -> None:
        self.folder, self.clock, self.config = folder, clock, config
        self.release: str | None = RELEASE
        self.tasks: Tasks | None = some_tasks()
        self.frozen, self.cheap = False, True
        self.changes = self.asked = 0
        self.worker = self.again()

    def again(self) -> Worker:
        self.worker = Worker(
            WorkerConfig.model_validate({"queue": "orders", **self.config}),
            self.folder / "cohort.json",
            self.clock,
            lambda: self.release,
            self.ask,
            lambda: self.cheap,
            lambda: self.frozen,
            self.changed,
        )
        return self.worker

    async def ask(self) -> Tasks:
        self.asked += 1
        if self.tasks is None:
            raise CommandError("it hangs")
        return self.tasks

    def changed(self) -> None:
        self.changes += 1

    def cohort(self) -> Cohort:
        found = self.worker.cohort()
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path, clock: ManualClock) -> Bench:
    return Bench(tmp_path, clock)


def intent(drain: bool, build: str = BUILD, queue: str = "orders") -> CohortIntent:
    return CohortIntent(queue=queue, build_id=build, drain=drain)


async def test_the_build_is_the_release_unless_it_is_named(bench: Bench, tmp_path: Path) -> None:
    assert (bench.cohort().build_id, bench.cohort().queue) == (BUILD, "orders")
    named = Bench(tmp_path, bench.clock, build_id="orders-2026-04-21").cohort()
    assert named.build_id == "orders-2026-04-21"
    bench.release = None
    assert bench.cohort().build_id == "none"


async def test_a_drain_takes_the_share_and_waits_for_what_is_in_hand(bench: Bench) -> None:
    bench.tasks = some_tasks("running", "running", "queued", "succeeded")
    await bench.worker.count()
    assert bench.worker.share(25) == 25
    await bench.worker.told(intent(True))
    found = bench.cohort()
    assert (found.state, found.active, found.waiting) == (CohortState.DRAINING, 2, 1)
    assert (found.oldest, bench.worker.share(25)) == (12.0, 0)
    bench.tasks = some_tasks("succeeded")
    told = bench.changes
    await bench.worker.count()
    assert bench.cohort().state is CohortState.DRAINED
    assert bench.changes == told + 1, "the coordinator hears of it at once"
    await bench.worker.told(intent(False))
    assert (bench.cohort().state, bench.worker.share(25)) == (CohortState.ACTIVE, 25)


async def test_what_the_gateway_does_not_say_is_not_taken_as_nothing(bench: Bench) -> None:
    await bench.worker.told(intent(True))
    bench.tasks = None
    await bench.worker.count()
    found = bench.cohort()
    assert (found.state, found.active) == (CohortState.DRAINING, None)
    assert "it hangs" in found.reason


async def test_a_drain_outlives_the_agent_and_the_coordinator(bench: Bench) -> None:
    await bench.worker.told(intent(True))
    await bench.again().load()
    assert bench.worker.share(100) == 0
    await bench.worker.told(None)
    assert (bench.worker.share(100), bench.worker.heard) == (0, intent(True))


@pytest.mark.parametrize("other", [intent(True, build="other"), intent(True, queue="mail")])
async def test_only_its_own_build_and_queue_count(bench: Bench, other: CohortIntent) -> None:
    await bench.worker.told(other)
    assert bench.worker.share(100) == 100


async def test_an_upgrade_ends_the_drain_of_the_build_that_was(bench: Bench) -> None:
    await bench.worker.told(intent(True))
    bench.release = "f" * 64
    await bench.worker.judge()
    found = bench.cohort()
    assert (found.build_id, found.state) == ("f" * BUILD_DIGITS, CohortState.ACTIVE)


async def test_a_frozen_node_takes_no_work_again_until_it_is_free(bench: Bench) -> None:
    await bench.worker.told(intent(True))
    bench.frozen = True
    await bench.worker.told(intent(False))
    assert (bench.worker.share(100), "frozen" in bench.cohort().reason) == (0, True)
    bench.frozen = False
    await bench.worker.judge()
    assert bench.worker.share(100) == 100


async def test_a_frozen_node_is_drained_at_once(bench: Bench) -> None:
    bench.frozen = True
    await bench.worker.told(intent(True))
    assert bench.worker.share(100) == 0


@pytest.mark.parametrize(("cheap", "asked"), [(True, 10), (False, 1)])
async def test_counting_by_cli_is_rare_and_a_drain_ends_in_time_all_the_same(
    bench: Bench, cheap: bool, asked: int
) -> None:
    bench.cheap = cheap
    await bench.worker.told(intent(True))
    running = asyncio.create_task(bench.worker.run())
    try:
        for step in range(10):
            while not bench.clock.awaited:
                await asyncio.sleep(0.01)
            if step == 5:
                bench.release = "f" * 64
            bench.clock.advance(LOOK_S)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert bench.asked == asked
    assert bench.worker.share(100) == 100


async def test_a_damaged_file_is_no_drain(bench: Bench) -> None:
    (bench.folder / "cohort.json").write_text(json.dumps({"intent": 1}))
    await bench.again().load()
    assert bench.worker.share(100) == 100


async def test_who_is_no_worker_has_no_cohort(bench: Bench) -> None:
    nobody = Worker(
        None,
        bench.folder / "cohort.json",
        bench.clock,
        lambda: RELEASE,
        bench.ask,
        lambda: True,
        lambda: False,
        bench.changed,
    )
    await nobody.told(intent(True))
    await nobody.run()
    assert (nobody.cohort(), nobody.share(100)) == (None, 100)
