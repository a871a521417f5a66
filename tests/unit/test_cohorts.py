"""Workers by build: counts, drains that reach the nodes, and work that is blocked (seed 004)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.coordinator import Coordinator
from agent.layout import Layout
from agent.trust import load_trust
from coordinator.cli import app
from coordinator.cohorts import Worker, blocked_work, count_cohorts, drain_leaves
from coordinator.store.cohorts import Drain
from shared.cohorts import CohortStatus, CohortView
from shared.http import RefusedError
from shared.messages import Verdict
from shared.nodes import Cohort, CohortIntent, CohortState
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, SyncRequest
from tests.support.coordinatorkit import Running, dialling, joined

NOW = 1.8e9
OLD, NEW = "orders-old", "orders-new"


def worker(
    name: str,
    build: str,
    state: CohortState = CohortState.ACTIVE,
    *,
    live: bool = True,
    **counts: Any,
) -> Worker:
    cohort = Cohort(queue="orders", build_id=build, state=state, **counts)
    return Worker(name, cohort, NOW - (30 if live else 31))


def counted(*workers: Worker, drained: str | None = None) -> dict[str, CohortView]:
    drain = {} if drained is None else {("orders", drained): Drain("orders", drained, 5.0, "ann")}
    return {each.build_id: each for each in count_cohorts(workers, drain, NOW)}


def test_workers_and_their_work_are_counted_by_build() -> None:
    found = counted(
        worker("a", OLD, CohortState.DRAINING, active=2, waiting=1, reason="it hangs"),
        worker("b", OLD, CohortState.DRAINED, active=0, waiting=0),
        worker("c", OLD, CohortState.DRAINING, live=False, active=9, waiting=9),
        worker("d", NEW, active=4, waiting=0),
        drained=OLD,
    )
    old, new = found[OLD], found[NEW]
    assert (old.active_workers, old.draining_workers, old.silent_workers) == (0, 1, 1)
    assert (old.status, old.in_flight, old.waiting) == (CohortStatus.DRAINING, 2, 1)
    assert (old.drain_intent, old.drained_by, old.drained_at) == (True, "ann", 5.0)
    assert (old.nodes, old.notes) == (["a", "b", "c"], ["a: it hangs"])
    assert old.blocked == 0, "a live worker has this build: it may still do that work"
    assert (new.status, new.active_workers, new.in_flight) == (CohortStatus.ACTIVE, 1, 4)


@pytest.mark.parametrize(
    ("workers", "status"),
    [
        ([worker("a", OLD, CohortState.DRAINED, active=0, waiting=0)], CohortStatus.DRAINED),
        ([worker("a", OLD, live=False)], CohortStatus.SILENT),
        ([], CohortStatus.DRAINED),
    ],
)
def test_when_a_build_may_be_stopped(workers: list[Worker], status: CohortStatus) -> None:
    """Also a drained build that no node has any more is shown: its intent is still there."""
    assert counted(*workers, drained=OLD)[OLD].status is status


def test_work_of_a_build_without_a_live_worker_is_blocked_and_counted() -> None:
    gone = worker("a", OLD, live=False, active=2, waiting=3, oldest=NOW - 90)
    found = counted(gone, worker("b", NEW, active=1))
    old, new = found[OLD], found[NEW]
    assert (old.blocked, old.blocked_age_s, old.in_flight) == (5, 90.0, 0)
    assert new.blocked == 0
    said = "5 tasks of orders wait for build orders-old, which no live worker has"
    assert blocked_work([old, new]) == [said]
    back = worker("a", OLD, active=2, waiting=3, oldest=NOW - 90)
    assert blocked_work(counted(back).values()) == []


def test_a_drain_must_leave_somebody_who_takes_the_work() -> None:
    both = counted(worker("a", OLD), worker("b", NEW))
    assert drain_leaves(both.values(), "orders", OLD) == ""
    draining = counted(worker("a", OLD), worker("b", NEW, CohortState.DRAINING))
    assert "no live worker of another build" in drain_leaves(draining.values(), "orders", OLD)
    intended = counted(worker("a", OLD), worker("b", NEW), drained=NEW)
    assert drain_leaves(intended.values(), "orders", OLD)
    assert drain_leaves(both.values(), "mail", OLD)


def cli(running: Running, *words: str) -> Result:
    file = str(running.settings.paths.client)
    return CliRunner().invoke(app, ["cohort", *words, "--config", file])


class Agent:
    """As much of an agent as a drain needs: it reports its cohort and hears the intent."""

    def __init__(self, layout: Layout, build: str) -> None:
        self.layout, self.build = layout, build
        self.heard: CohortIntent | None = None
        self.state = CohortState.ACTIVE
        self.published = 0

    async def sync(self, wait_s: float = 0, *, cohort: bool = True) -> SyncAnswer:
        trust = await asyncio.to_thread(load_trust, self.layout)
        said = Cohort(queue="orders", build_id=self.build, state=self.state, active=1, waiting=2)
        report = NodeReport(
            node=trust.name,
            agent_version="0",
            release="a" * 64,
            readiness=ReadinessSummary(status=Verdict.GREEN),
            cohort=said if cohort else None,
        )
        asked = SyncRequest(
            report=report,
            wait_s=wait_s,
            roster=(2**53 - 1, 2**53 - 1),
            repository=self.published,
            cohort=self.heard,
        )
        async with dialling(self.layout) as dialler:
            answer = await Coordinator(dialler, trust.identity.url).sync(asked)
        self.published = answer.repository
        if answer.cohort is not None:
            self.heard = answer.cohort
        return answer


async def listed(running: Running) -> list[CohortView]:
    answer = await running.get("/v1/cohorts")
    return [CohortView.from_value(each) for each in answer["cohorts"]]


async def test_a_drain_ends_the_worker_s_wait_and_outlives_the_coordinator(
    running: Running,
) -> None:
    old = Agent(await joined(running, "a"), OLD)
    new = Agent(await joined(running, "b"), NEW)
    for agent in (old, new):
        assert (await agent.sync()).cohort == CohortIntent(
            queue="orders", build_id=agent.build, drain=False
        )
    waiting = asyncio.create_task(old.sync(20))
    other = asyncio.create_task(new.sync(20))
    await asyncio.sleep(0.5)
    assert not waiting.done(), "what it has heard already is no news"
    drained = await asyncio.to_thread(cli, running, "drain", "orders", "--build-id", OLD)
    assert drained.stderr == f"build {OLD} of orders is drained: a\n"
    async with asyncio.timeout(60):
        answer = await waiting
    assert answer.cohort is not None
    assert answer.cohort.drain
    await asyncio.sleep(0.3)
    assert not other.done(), "nobody else is woken"
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    await running.restart()
    found = await listed(running)
    assert [(each.nodes, each.drain_intent) for each in found] == [(["b"], False), (["a"], True)]
    again = await asyncio.to_thread(cli, running, "drain", "orders", "--build-id", OLD)
    assert again.exit_code == 0
    resumed = await asyncio.to_thread(cli, running, "resume", "orders", "--build-id", OLD)
    assert resumed.stderr == f"build {OLD} of orders takes work again: a\n"
    answer = await old.sync()
    assert answer.cohort is not None
    assert not answer.cohort.drain


async def test_who_is_no_worker_hears_of_no_cohort(running: Running) -> None:
    """One that was a worker before waits as everybody does, and is not answered at once for ever."""
    agent = Agent(await joined(running, "a"), OLD)
    await agent.sync()
    waiting = asyncio.create_task(agent.sync(2, cohort=False))
    await asyncio.sleep(0.7)
    assert not waiting.done()
    assert (await waiting).cohort is None


async def test_the_work_of_a_revoked_node_is_not_counted(running: Running) -> None:
    await Agent(await joined(running, "a"), OLD).sync()
    assert [each.nodes for each in await listed(running)] == [["a"]]
    await running.post("/v1/nodes/a/revoke", {"reason": "stolen"})
    assert await listed(running) == []


async def test_the_last_build_is_drained_with_a_warning_or_not_at_all(running: Running) -> None:
    """Seed 004's `warn` and `fail`."""
    await Agent(await joined(running, "a"), OLD).sync()
    tried = await asyncio.to_thread(cli, running, "drain", "orders", "--build-id", OLD, "--dry-run")
    assert "warning: no live worker of another build would take new work" in tried.stderr
    assert [each.drain_intent for each in await listed(running)] == [False]
    body = json.dumps({"value": "fail"}).encode()
    await running.client.ask("PUT", "/v1/settings/validation", body)
    refused = await asyncio.to_thread(cli, running, "drain", "orders", "--build-id", OLD)
    assert isinstance(refused.exception, RefusedError)
    assert refused.exception.status == 409
    assert [each.drain_intent for each in await listed(running)] == [False]


async def test_a_build_that_nobody_has_is_told_with_those_there_are(running: Running) -> None:
    await Agent(await joined(running, "a"), OLD).sync()
    wrong = await asyncio.to_thread(cli, running, "drain", "orders", "--build-id", NEW)
    assert isinstance(wrong.exception, RefusedError)
    assert wrong.exception.status == 404
    assert wrong.exception.remedy == f"there are: orders {OLD}"


async def test_cohorts_are_listed_with_their_counts(running: Running) -> None:
    await Agent(await joined(running, "a"), OLD).sync()
    shown = await asyncio.to_thread(cli, running, "list")
    (row,) = [line.split("\t") for line in shown.stdout.splitlines()[1:]]
    assert row == ["orders", OLD, "active", "1", "0", "0", "1", "2", "0", ""]
    none = await asyncio.to_thread(cli, running, "list", "mail", "--json")
    assert json.loads(none.stdout)["cohorts"] == []
