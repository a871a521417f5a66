"""Promises about orders: which are broken, who is told, and that nobody is told twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.notifier import Notifier
from coordinator.orders.book import OrderBook
from coordinator.orders.sla import breaches_of, plan_sweep
from coordinator.orders.sources import Orders
from coordinator.orders.sweep import FORGET_S, Sweeper
from coordinator.store.database import Database
from coordinator.store.orders import OrderQueries
from shared.errors import ConflictError
from shared.fleetsettings import FleetSettings, SlaSettings
from shared.orders import (
    BreachKind,
    CompleteRequest,
    OrderKind,
    OrderRequest,
    OrderState,
    OrderView,
    SweepRequest,
    UpdateRequest,
)
from tests.conftest import ManualClock
from tests.support.coordinatorkit import Running, joined, sync
from tests.unit.test_orders import NOW, an_order

SLA = SlaSettings()


def kinds(sla: SlaSettings, at: float, **changes: Any) -> list[BreachKind]:
    return [each.kind for each in breaches_of(an_order(**changes), sla, NOW + at)]


def test_the_defaults_are_the_safe_profile() -> None:
    assert (SLA.enabled, SLA.every_seconds, SLA.record_only) == (True, 300, True)
    assert (SLA.max_messages_per_sweep, SLA.fyi_agents) == (3, [])


def test_an_order_that_nobody_takes_is_late_by_its_claim_alone() -> None:
    assert kinds(SLA, SLA.claim_within) == []
    assert kinds(SLA, SLA.claim_within + 1) == [BreachKind.NOT_CLAIMED]
    assert kinds(SLA, SLA.complete_within + 1) == [BreachKind.NOT_CLAIMED]


def test_a_claimed_order_is_held_to_its_eta_its_updates_and_its_end() -> None:
    claimed = {"state": OrderState.CLAIMED, "claimed": NOW, "updated": NOW}
    within = {**claimed, "eta": NOW + 600}
    assert kinds(SLA, 599, **within) == []
    assert kinds(SLA, 601, **within) == [BreachKind.ETA_PASSED]
    silent = SLA.update_within + 1
    assert kinds(SLA, silent, **within) == [BreachKind.ETA_PASSED, BreachKind.NO_UPDATE]
    assert kinds(SLA, SLA.complete_within + 1, **within) == [
        BreachKind.ETA_PASSED,
        BreachKind.NO_UPDATE,
        BreachKind.NOT_COMPLETED,
    ]
    later = {**claimed, "eta": NOW + 99_999, "updated": NOW + SLA.complete_within}
    assert kinds(SLA, SLA.complete_within + 1, **later) == [], "it promised to take longer"
    for ended in (OrderState.COMPLETED, OrderState.CANCELLED, OrderState.EXPIRED):
        assert kinds(SLA, 1e6, **{**within, "state": ended}) == []


def test_reasons_name_the_promise_and_how_long_it_has_been() -> None:
    (found,) = breaches_of(an_order(), SLA, NOW + 700)
    assert found.reason == "not claimed within 5 min; open for 12 min"


def test_messages_go_to_assignee_and_fyi_once_and_never_more_than_the_cap() -> None:
    sla = SlaSettings(fyi_agents=["arch", "a"], max_messages_per_sweep=2)
    orders = [an_order(id=f"{number:08x}:a") for number in range(4)]
    found = plan_sweep(orders, sla, NOW + 1000, record_only=False)
    assert [each.told for each in found] == [["a", "arch"], ["a", "arch"], [], []]
    assert all(each.new for each in found)
    quiet = plan_sweep(orders, sla, NOW + 1000, record_only=True)
    assert [each.told for each in quiet] == [[], [], [], []]


async def at_once(order: OrderView, held: set[str]) -> str:
    return ""


class World:
    """Book and sweeps over a real database; time and settings are the test's."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.clock, self.sla = clock, SlaSettings(record_only=False)
        self.queries = OrderQueries(database)
        self.notifier = Notifier(1)
        self.book = OrderBook(
            self.queries, self.notifier, clock, lambda: {"a", "b", "arch"}, at_once
        )
        self.orders = Orders([self.book], self.queries)
        self.sweeper = Sweeper(self.orders, self.book, self.queries, self.settings, clock)

    async def settings(self) -> FleetSettings:
        return FleetSettings(sla=self.sla)

    async def order(self, node: str = "a", **asked: Any) -> str:
        request = OrderRequest(kind=OrderKind.RESTART, node=node, **asked)
        return (await self.book.create(request, "ann")).id

    async def sweep(self, **asked: Any) -> tuple[int, int, int, int]:
        report = await self.sweeper.sweep(SweepRequest(**asked))
        return report.scanned, report.breaches, report.recorded, report.messages


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> Any:
    database = await Database.open(tmp_path / "db")
    yield World(database, clock)
    await database.close()


async def test_one_message_for_each_breach_however_often_it_is_swept(world: World) -> None:
    world.sla = world.sla.model_copy(update={"fyi_agents": ["arch"]})
    order = await world.order()
    world.clock.advance(301)
    assert await world.sweep() == (1, 1, 1, 1)
    for _ in range(3):
        world.clock.advance(300)
        assert await world.sweep() == (1, 1, 0, 0)
    for node in ("a", "arch"):
        (notice,) = world.book.told(node).notices
        assert (notice.order, notice.kind) == (order, "not_claimed")
    assert world.book.told("b").notices == []
    (noted,) = (await world.orders.find(order)).order.breaches
    assert (noted.kind, noted.told) == (BreachKind.NOT_CLAIMED, noted.at)


async def test_a_dry_run_leaves_no_trace_and_record_only_tells_nobody(world: World) -> None:
    order = await world.order()
    world.clock.advance(301)
    before = world.notifier.generation
    assert await world.sweep(dry_run=True) == (1, 1, 0, 0)
    assert (await world.orders.find(order)).order.breaches == []
    assert await world.sweep(record_only=True) == (1, 1, 1, 0)
    (noted,) = (await world.orders.find(order)).order.breaches
    assert noted.told is None
    assert world.notifier.generation == before
    assert await world.sweep() == (1, 1, 0, 1), "what was only noted is told when that is allowed"


async def test_a_storm_of_breaches_is_told_a_few_at_a_time(world: World) -> None:
    for _ in range(8):
        await world.order("a")
    world.clock.advance(301)
    assert [(await world.sweep())[3] for _ in range(4)] == [3, 3, 2, 0]
    world.sla = world.sla.model_copy(update={"max_messages_per_sweep": 0})
    await world.order("b")
    world.clock.advance(301)
    assert (await world.sweep())[3] == 0
    assert await world.sweep(limit=3) == (3, 3, 0, 0)


async def test_notices_end_with_their_order(world: World) -> None:
    world.sla = world.sla.model_copy(update={"fyi_agents": ["arch"]})
    order = await world.order()
    world.clock.advance(301)
    await world.sweep()
    assert world.book.told("a").notices
    assert world.book.told("arch").tag
    await world.book.claim(order, "a", 60, None)
    await world.book.complete(order, "a", CompleteRequest(), None)
    assert world.book.told("a").notices == []
    assert world.book.told("arch").tag == ""
    assert (await world.orders.find(order)).order.breaches, "the breach stays in the order"


async def test_the_sweep_comes_round_by_itself_when_it_is_enabled(world: World) -> None:
    await world.order()
    assert await world.sweeper.look() is None
    world.clock.advance(301)
    report = await world.sweeper.look()
    assert report is not None
    assert (report.breaches, report.messages) == (1, 1)
    assert await world.sweeper.look() is None
    world.sla = world.sla.model_copy(update={"enabled": False})
    world.clock.advance(301)
    assert await world.sweeper.look() is None


async def test_what_stood_too_long_ends_whether_sweeps_are_enabled_or_not(world: World) -> None:
    world.sla = SlaSettings(enabled=False)
    untouched, taken = await world.order(expires_s=60), await world.order(expires_s=60)
    await world.book.claim(taken, "a", 600, None)
    world.clock.advance(61)
    await world.sweeper.look()
    ended = [(await world.orders.find(each)).order for each in (untouched, taken)]
    assert [each.state for each in ended] == [OrderState.EXPIRED, OrderState.EXPIRED]
    assert ended[0].reason == "a did not claim it in time"
    with pytest.raises(ConflictError):
        await world.book.update(taken, "a", UpdateRequest(), None)
    late = await world.book.complete(taken, "a", CompleteRequest(reason="late"), None)
    assert late.state is OrderState.COMPLETED


async def test_old_orders_are_forgotten_with_all_that_belongs_to_them(world: World) -> None:
    order = await world.order(expires_s=60)
    world.clock.advance(61)
    await world.sweeper.look()
    world.clock.advance(FORGET_S + 1)
    await world.sweeper.look()
    assert await world.book.find(order) is None
    assert await world.queries.events(order) == []


async def test_the_command_says_in_one_line_what_a_sweep_found(running: Running) -> None:
    node = await joined(running, "a")
    await running.post("/v1/orders", {"kind": "restart", "node": "a"})

    def sweep(*words: str) -> str:
        argv = ["sla", "sweep", *words, "--config", str(running.settings.paths.client)]
        return CliRunner().invoke(app, argv).stdout

    said = await asyncio.to_thread(sweep, "--dry-run", "--limit", "100")
    assert said == "scanned=1 breaches=0 messages=0\n"
    shown = json.loads(await asyncio.to_thread(sweep, "--record-only", "--json"))
    assert (shown["schemaVersion"], shown["scanned"], shown["record_only"]) == (1, 1, True)
    both = await asyncio.to_thread(
        CliRunner().invoke, app, ["sla", "sweep", "--dry-run", "--record-only"]
    )
    assert "exclude each other" in str(both.exception)
    told = (await sync(node, orders="")).orders
    assert told is not None
    assert told.notices == []
