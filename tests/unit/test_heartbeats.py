"""Heartbeats are durable before their answer, and many share one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from coordinator.api.sync import wait_of
from coordinator.notifier import Notifier
from coordinator.store.database import Database
from coordinator.store.heartbeats import Heartbeats
from coordinator.store.nodes import NodeQueries
from coordinator.store.tables import nodes
from coordinator.store.together import Together
from shared.messages import Verdict
from shared.report import NodeReport, ReadinessSummary
from shared.roster import Roster
from tests.support.coordinatorkit import joined, run_coordinator, sync

NAMES = ("a", "b", "c")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = await Database.open(tmp_path / "c.db")
    async with made.write() as db:
        rows = [{"name": name, "role": "stable", "key": name, "joined": 1.0} for name in NAMES]
        await db.execute(insert(nodes), rows)
    yield made
    await made.close()


def report(node: str, reason: str = "") -> NodeReport:
    ready = ReadinessSummary(status=Verdict.GREEN, reason=reason)
    return NodeReport(node=node, agent_version="1", readiness=ready)


async def test_the_last_word_of_each_node_is_on_disk_when_keep_returns(database: Database) -> None:
    queries = NodeQueries(database)
    assert [node.heard for node in await queries.nodes()] == [None, None, None]
    beats = Heartbeats(queries, gather_s=0)
    words: list[tuple[str, float, str | None]]
    words = [(name, 2.0, report(name, "first").model_dump_json()) for name in NAMES[:2]]
    words += [("a", 3.0, report("a", "second").model_dump_json()), ("b", 4.0, None)]
    await asyncio.gather(*(beats.keep(*word) for word in words))
    for known in (queries, NodeQueries(database)):
        found = {node.name: node for node in await known.nodes()}
        assert [found[name].heard for name in NAMES] == [3.0, 4.0, None]
        assert found["a"].parsed() == report("a", "second")
        assert found["b"].parsed() == report("b", "first")
        assert found["c"].parsed() is None
    await beats.close()


async def test_a_word_that_cannot_be_written_is_not_taken_for_kept(database: Database) -> None:
    queries = NodeQueries(database)
    await queries.nodes()
    async with database.write() as db:
        await db.exec_driver_sql("ALTER TABLE heartbeats RENAME TO gone")
    beats = Heartbeats(queries, gather_s=0)
    with pytest.raises(Exception, match="heartbeats"):
        await beats.keep("a", 2.0, None)
    async with database.write() as db:
        await db.exec_driver_sql("ALTER TABLE gone RENAME TO heartbeats")
    await beats.keep("a", 3.0, None)
    assert (await queries.nodes())[0].heard == 3.0


async def test_what_comes_during_a_write_is_written_together() -> None:
    batches: list[list[int]] = []

    async def write(items: list[int]) -> None:
        batches.append(items)
        await asyncio.sleep(0.01)
        if 3 in items:
            raise ValueError("the disk is full")

    together = Together(write, "numbers")
    first = asyncio.create_task(together.keep(0))
    while not batches:
        await asyncio.sleep(0)
    later = [asyncio.create_task(together.keep(number)) for number in (1, 2, 3)]
    assert not first.done(), "nothing is kept before it is written"
    await first
    results = await asyncio.gather(*later, return_exceptions=True)
    assert [str(each) for each in results] == ["the disk is full"] * 3
    await together.keep(4)
    await together.close()
    assert batches == [[0], [1, 2, 3], [4]]


async def test_a_poll_is_woken_for_its_own_node_alone() -> None:
    notifier = Notifier(1)
    polls = {
        name: asyncio.create_task(notifier.wait_for(name, notifier.number(name), 5))
        for name in NAMES
    }
    await asyncio.sleep(0)
    generation = notifier.generation
    notifier.seen()
    notifier.notify(["a"])
    await asyncio.wait_for(polls["a"], 1)
    assert notifier.generation == generation + 2
    assert not polls["b"].done()
    notifier.notify()
    await asyncio.wait_for(asyncio.gather(*polls.values()), 1)
    before = notifier.number("c")
    assert await notifier.wait_for("c", before, 0.01) == before, "the wait is over, without news"
    assert await notifier.wait_for("c", before - 1, 5) == before, "news that came before the wait"


async def test_a_node_that_repeats_itself_is_heard_again(tmp_path: Path) -> None:
    async with run_coordinator(tmp_path) as running:
        layout = await joined(running, "a")
        heard = []
        for _ in range(2):
            answer = await sync(layout, report("a"))
            heard.append((await running.get("/v1/nodes"))["nodes"][0])
        assert heard[1]["heard"] > heard[0]["heard"]
        assert answer.roster is not None, "what it has not heard yet is said again"
        await sync(layout, report("a", "other"))
        await sync(layout, report("a"))
        assert (await running.get("/v1/nodes"))["nodes"][0]["reason"] == ""


def test_what_was_worked_out_of_the_old_does_not_go_along_with_a_copy() -> None:
    empty = Roster(fleet="0" * 64, epoch=1, issued=0, nodes=[])
    assert not empty.has("a")
    assert "_by_name" in empty.__dict__
    assert "_by_name" not in empty.model_copy(update={"epoch": 2}).__dict__


def test_nodes_that_began_together_do_not_all_come_back_together() -> None:
    assert (wait_of(60, 0), wait_of(12, 0)) == (25, 12)
    assert wait_of(60, 0.5) == pytest.approx(22.5)
    assert wait_of(0, 0.5) == 0
