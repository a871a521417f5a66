"""What was measured: kept within bounds, kept over a restart, and asked for by HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agent.history_api import PATH, history_route
from agent.readiness.chronicle import Chronicle, pack, unpack
from agent.readiness.history import (
    BUCKET_S,
    COARSE_S,
    FULL_S,
    MAX_SAMPLES,
    MAX_SERIES,
    Bucket,
    History,
    Sample,
)
from agent.readiness.monitor import Monitor
from agent.readiness.reading import Reading
from agent.readiness.trends import POINTS, Trends
from agent.schema import SCHEMA_VERSION
from agent.store import Store, StoreError
from shared.http import application
from shared.readiness import CheckStatus
from shared.report import NodeReport
from shared.sparkline import describe_trends, sparkline
from tests.conftest import ManualClock

T0 = 1_800_000_000.0


def filled(seconds: float, *, every: float = 5.0, name: str = "memory_bytes") -> History:
    history = History()
    for place in range(int(seconds / every)):
        history.note(name, T0 + place * every, float(place))
    return history


def test_an_hour_is_kept_in_full_and_a_week_in_buckets() -> None:
    history = filled(9 * 86400, every=60)
    end = T0 + 9 * 86400 - 60
    full = history.since("memory_bytes", 0.0)
    assert (full[0].at, full[-1].at) == (end - FULL_S, end)
    assert history.newest("memory_bytes") == full[-1]
    coarse = history.coarse("memory_bytes", 0.0)
    assert len(coarse) == COARSE_S / BUCKET_S + 2, (
        "the one that fills, and the one a week before it"
    )
    last = coarse[-2]
    assert (last.low, last.mean, last.high, last.count) == (
        last.low,
        last.low + 2,
        last.low + 4,
        5,
    )
    assert history.coarse("memory_bytes", last.at, closed_only=True) == [last]


def test_what_is_asked_for_begins_where_it_was_asked_for() -> None:
    history = filled(600)
    assert [each.at - T0 for each in history.since("memory_bytes", T0 + 587)] == [590, 595]
    assert history.since("queue_depth", 0.0) == []
    assert history.coarse("queue_depth", 0.0) == []
    assert history.newest("queue_depth") is None


def test_neither_fast_probes_nor_many_names_grow_it_without_bound() -> None:
    history = filled(1200, every=0.1)
    kept = history.since("memory_bytes", 0.0)
    assert MAX_SAMPLES <= len(kept) < MAX_SAMPLES + 512
    assert kept[-1].value == 11999
    for place in range(100):
        history.note(f"series_{place}", T0, 1.0)
    assert len(history.names()) == MAX_SERIES


def test_a_clock_that_goes_back_takes_with_it_what_lies_ahead() -> None:
    history = filled(600)
    history.note("memory_bytes", T0 + 300, 7.0)
    kept = history.since("memory_bytes", 0.0)
    assert [each.at - T0 for each in kept][-2:] == [295, 300]
    assert kept[-1].value == 7.0
    buckets = history.coarse("memory_bytes", 0.0)
    assert [each.at for each in buckets] == sorted({each.at for each in buckets})


async def saved(path: Path, history: History, clock: ManualClock) -> None:
    store = await Store.open(path)
    await Chronicle(history, store, clock).save()
    await store.close()


async def loaded(path: Path, clock: ManualClock) -> History:
    store, history = await Store.open(path), History()
    await Chronicle(history, store, clock).load()
    await store.close()
    return history


async def test_it_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    history = filled(7000)
    before = history.since("memory_bytes", 0.0)
    clock = ManualClock(T0 + 7000)
    await saved(tmp_path / "agent.db", history, clock)
    clock.advance(30)
    again = await loaded(tmp_path / "agent.db", clock)
    assert again.since("memory_bytes", 0.0) == [each for each in before if each.at >= T0 + 3430]
    assert again.coarse("memory_bytes", 0.0) == history.coarse("memory_bytes", 0.0)


async def test_each_save_writes_only_what_is_new_and_old_rows_go(tmp_path: Path) -> None:
    store, history, clock = await Store.open(tmp_path / "agent.db"), History(), ManualClock(T0)
    chronicle = Chronicle(history, store, clock)
    for place in range(200):
        for second in range(0, 60, 5):
            history.note("memory_bytes", T0 + place * 60 + second, 1.0)
        clock.advance(60)
        await chronicle.save()
    rows = await store.rows("SELECT at, packed FROM history_samples ORDER BY at")
    assert 60 <= len(rows) <= 62
    assert {len(unpack(row["packed"])) for row in rows} == {12}
    (buckets,) = await store.rows("SELECT COUNT(*) AS n, MIN(count) AS least FROM history_buckets")
    assert (buckets["n"], buckets["least"]) == (39, 60)
    clock.advance(8 * 86400)
    await chronicle.save()
    assert await store.rows("SELECT * FROM history_samples") == []
    assert await store.rows("SELECT * FROM history_buckets") == []
    await store.close()


class FullStore(Store):
    """A database whose disk is full until the test makes room."""

    full = True

    async def write_all(self, work: object) -> None:
        if self.full:
            raise StoreError("agent.db: database or disk is full")
        await super().write_all(work)  # type: ignore[arg-type]


async def test_a_full_disk_costs_nothing_that_is_still_in_memory(tmp_path: Path) -> None:
    store, history, clock = await FullStore.open(tmp_path / "agent.db"), filled(600), ManualClock()
    assert isinstance(store, FullStore)
    clock.advance(600)
    chronicle = Chronicle(history, store, clock)
    await chronicle.save()
    assert await store.rows("SELECT * FROM history_samples") == []
    store.full = False
    await chronicle.save()
    await store.close()
    again = await loaded(tmp_path / "agent.db", clock)
    assert again.since("memory_bytes", 0.0) == history.since("memory_bytes", 0.0)


async def test_what_a_clock_that_was_ahead_has_stamped_is_left_out(tmp_path: Path) -> None:
    history = filled(600)
    history.note("memory_bytes", T0 + 86400, 1.0)
    await saved(tmp_path / "agent.db", history, ManualClock(T0 + 86400))
    again = await loaded(tmp_path / "agent.db", ManualClock(T0 + 605))
    assert all(each.at <= T0 + 605 for each in again.since("memory_bytes", 0.0))


async def test_a_database_of_the_agent_before_is_brought_up_and_can_go_back(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await (await Store.open(path)).close()

    def take_back() -> None:
        with sqlite3.connect(path) as db:
            for (name,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                db.execute(f"DROP TRIGGER {name}")
            for name in ("history_samples", "history_buckets", "operator_clears", "inbox"):
                db.execute(f"DROP TABLE {name}")
            db.execute("PRAGMA user_version = 2")
            db.execute("DELETE FROM meta")
        db.close()

    await asyncio.to_thread(take_back)
    await saved(path, filled(60), ManualClock(T0 + 60))
    store = await Store.open(path)
    (row,) = await store.rows("SELECT value FROM meta WHERE key = 'readable_from'")
    assert row["value"] < SCHEMA_VERSION
    assert len(await store.rows("SELECT * FROM history_samples")) == 1
    await store.close()


def test_packed_samples_are_whole_or_not_there() -> None:
    samples = [Sample(T0, 1.5), Sample(T0 + 1, -2.0)]
    assert unpack(pack(samples)) == samples
    assert unpack(pack(samples)[:-3]) == samples[:1]
    assert unpack(b"") == []


async def answer(history: History, query: str) -> tuple[int, dict[str, object]]:
    app: web.Application = application()
    app.router.add_get(PATH, history_route(history))
    async with TestClient(TestServer(app)) as client:
        response = await client.get(PATH + query)
        return response.status, await response.json()


async def test_history_is_asked_for_by_name_and_time() -> None:
    history = filled(7200)
    history.note("queue_depth", T0 + 7195, 3.0)
    status, whole = await answer(history, "?since=1800003700")
    assert status == 200
    samples = whole["samples"]
    assert isinstance(samples, dict)
    assert set(samples) == {"memory_bytes", "queue_depth"}
    assert samples["queue_depth"] == [[T0 + 7195, 3.0]]
    _, coarse = await answer(history, "?series=memory_bytes&coarse=1&since=1800006900")
    assert coarse["buckets"] == {
        "memory_bytes": [
            {"at": T0 + 6900, "min": 1380.0, "mean": 1409.5, "max": 1439.0, "count": 60}
        ]
    }


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("?series=nothing_such", 404, "memory_bytes"),
        ("?series=../etc", 400, "names"),
        ("?series=" + ",".join(["memory_bytes"] * 17), 400, "16"),
        ("?since=yesterday", 400, "duration"),
        ("?since=nan", 400, "duration"),
        ("?points=0", 400, "3600"),
        ("?points=many", 400, "3600"),
    ],
)
async def test_history_refuses_what_it_does_not_understand(
    query: str, status: int, word: str
) -> None:
    found, body = await answer(filled(60), query)
    assert found == status
    assert word in f"{body['detail']} {body['remedy']}"


async def test_one_answer_is_bounded() -> None:
    history = filled(60)
    for name in range(8):
        for place in range(3600):
            history.note(f"fast_{name}", T0 + place, 1.0)
    found, body = await answer(history, "?since=1800000000")
    assert (found, body["code"]) == (400, "bad-input")
    asked = "?since=1800000000&series=fast_1,fast_2"
    assert (await answer(history, asked))[0] == 200
    status, few = await answer(history, "?since=1800000000&points=600")
    assert status == 200
    samples = few["samples"]
    assert isinstance(samples, dict)
    assert {len(each) for each in samples.values()} == {12, 600}


def test_trends_are_few_numbers_and_made_once_a_minute() -> None:
    clock, history = ManualClock(T0), filled(3600)
    clock.advance(3600)
    trends = Trends(history, clock)
    (memory,) = trends.now()
    assert (memory.name, memory.unit, len(memory.values)) == ("memory_bytes", "bytes", POINTS)
    assert memory.values[0] == pytest.approx(12, abs=1)
    history.note("memory_bytes", T0 + 3600, 1e9)
    assert trends.now()[0] is memory
    clock.advance(61)
    assert trends.now()[0].values[-1] != memory.values[-1]
    assert len(memory.model_dump_json()) < 400


def test_a_report_without_trends_is_still_a_report() -> None:
    report = NodeReport.from_bytes(
        b'{"node": "a", "agent_version": "0", "readiness": {"status": "green"}}'
    )
    assert (report.trends, report.weight) == ([], None)


def test_a_sparkline_spans_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([None, 5.0, None]) == " ▁ "
    assert sparkline([1000.0, 1001.0, 999.0]) == "▁▁▁", "noise is no mountain"
    assert sparkline([]) == ""


def test_a_trend_in_words() -> None:
    clock, history = ManualClock(T0 + 3600), History()
    for place in range(720):
        history.note("memory_bytes", T0 + place * 5, (700 + place / 10) * (1 << 20))
    (line,) = describe_trends(Trends(history, clock).now())
    assert line.startswith("memory    ▁")
    assert line.endswith("█ 771 MiB (701 MiB to 771 MiB)")


def test_a_bucket_is_not_taken_twice() -> None:
    history = History()
    bucket = Bucket(T0, 1.0, 1.0, 1.0, 1)
    history.restore("memory_bytes", [bucket, bucket], [Sample(T0 + 10, 5.0)])
    assert history.coarse("memory_bytes", 0.0, closed_only=True) == [bucket]


class Numbers:
    """A probe that always passes, with another number each time."""

    id, period_s, timeout_s, stale_after_s = "memory", 5.0, 1.0, 60.0

    def __init__(self) -> None:
        self.value = 0.0

    async def read(self) -> Reading:
        self.value += 1
        return Reading(CheckStatus.PASS, observed=self.value, series={"memory_bytes": self.value})


async def test_numbers_alone_are_no_news(clock: ManualClock) -> None:
    """What a listener is told makes a sync: trends must not."""
    told: list[int] = []
    history = History()
    monitor = Monitor("a", [Numbers()], clock, lambda: told.append(1), history=history, guards=[])
    for _ in range(20):
        await monitor.refresh()
        clock.advance(5)
    assert len(history.since("memory_bytes", 0.0)) == 20
    assert len(told) == 1


async def test_a_check_without_a_probe_cannot_be_read_again_and_is_left_out(
    clock: ManualClock,
) -> None:
    probe = Numbers()
    monitor = Monitor("a", [probe], clock, lambda: None, history=History(), guards=[])
    await monitor.refresh(["memory", "leak", "version"])
    assert probe.value == 1
