"""How the coordinator says that it serves, that it can work, and what the fleet is in numbers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from typing import Any

import pytest
from typer.testing import CliRunner

from coordinator import __version__
from coordinator.cli import app
from coordinator.cli.operating import rows_of
from coordinator.metrics import render
from coordinator.ready import DATABASE_S, STALLED_S, Readiness
from coordinator.repository import Repository
from coordinator.store.database import Database, newest_revision
from scripts.debian import need
from shared.clock import Clock
from shared.cohorts import CohortStatus, CohortView
from shared.exposition import Process
from shared.fleetsettings import FleetSettings
from shared.messages import Verdict
from shared.nodes import Cohort, NodeHealth
from shared.operating import OperatorMetrics, Ready
from shared.report import NodeReport, ReadinessSummary
from shared.rollout import NodeView
from tests.conftest import ManualClock
from tests.support.coordinatorkit import Running, joined, run_coordinator, sync


def report(name: str, **said: Any) -> NodeReport:
    base = {
        "node": name,
        "agent_version": "0.1.0",
        "release": "a" * 64,
        "version_running": "2026.9.6",
        "readiness": ReadinessSummary(status=Verdict.GREEN),
    }
    return NodeReport.model_validate({**base, **said})


async def test_health_and_readiness_need_no_token(running: Running) -> None:
    health = await running.reply("GET", "/v1/health")
    assert (health.status, health.body) == (200, {"status": "serving", "version": __version__})
    ready = await running.reply("GET", "/v1/ready")
    assert (ready.status, ready.body["ready"]) == (200, True)
    names = [check["name"] for check in ready.body["checks"]]
    assert names == ["database", "engine", "repository", "migrations", "workers"]


async def test_a_fleet_that_nobody_has_signed_is_ready_to_be_signed(tmp_path: Any) -> None:
    async with run_coordinator(tmp_path, signed=False) as running:
        ready = await running.reply("GET", "/v1/ready")
    assert ready.status == 200
    (said,) = [each for each in ready.body["checks"] if each["name"] == "repository"]
    assert said["reason"] == "no operator has signed this fleet yet"


class Stage:
    """Readiness over a real database, with everything else as a test sets it."""

    def __init__(self, database: Database, repository: Repository, clock: Clock) -> None:
        self.cohorts: list[CohortView] = []
        self.settings = FleetSettings()
        self.looked = clock.monotonic()
        self.readiness = Readiness(
            database, repository, clock, lambda: self.looked, self.count, self.current
        )

    def count(self) -> list[CohortView]:
        return self.cohorts

    async def current(self) -> FleetSettings:
        return self.settings

    async def read(self, clock: ManualClock) -> Ready:
        """Past what is kept for a second."""
        clock.advance(2)
        self.looked += 2
        return await self.readiness.read()


class Expiring:
    """As much of a repository as readiness asks."""

    root: object = object()

    def __init__(self) -> None:
        self.said = ""

    def expired(self) -> str:
        return self.said


def refusals(ready: Ready) -> dict[str, str]:
    assert ready.ready == all(check.ok for check in ready.checks)
    return {check.name: check.reason for check in ready.checks if not check.ok}


async def test_what_readiness_rests_on(running: Running, clock: ManualClock) -> None:
    await running.stop()
    path = running.settings.paths.database
    database, repository = await Database.open(path), Expiring()
    try:
        stage = Stage(database, repository, clock)  # type: ignore[arg-type]
        await stage.readiness.open()
        assert refusals(await stage.read(clock)) == {}

        stage.looked -= STALLED_S + 1
        assert "no rollout was looked at for" in refusals(await stage.read(clock))["engine"]
        stage.looked = clock.monotonic()

        repository.said = "expired: timestamp metadata"
        assert refusals(await stage.read(clock)) == {"repository": "expired: timestamp metadata"}
        repository.said = ""

        blocked = CohortView(queue="orders", build_id="old", status=CohortStatus.SILENT, blocked=3)
        stage.cohorts = [blocked]
        found = await stage.read(clock)
        assert (found.ready, found.checks[-1].reason != "") == (True, True), "only a warning"
        stage.settings = FleetSettings(validation="fail")
        assert refusals(await stage.read(clock)) == {
            "workers": "3 tasks of orders wait for build old, which no live worker has"
        }
        stage.cohorts = []

        def go_back() -> None:
            with sqlite3.connect(path) as file:
                file.execute("UPDATE alembic_version SET version_num = '0002'")
            file.close()

        await asyncio.to_thread(go_back)
        said = refusals(await stage.read(clock))["migrations"]
        newest = await asyncio.to_thread(newest_revision)
        assert said == f"the database has schema 0002, this version needs {newest}"
    finally:
        await database.close()


async def test_a_database_that_is_locked_or_gone_is_no_database(
    running: Running, clock: ManualClock
) -> None:
    await running.stop()
    database = await Database.open(running.settings.paths.database)
    stage = Stage(database, Expiring(), clock)  # type: ignore[arg-type]
    holds, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with database.write():
            holds.set()
            await done.wait()

    holding = asyncio.create_task(hold())
    try:
        await holds.wait()
        found = await stage.read(clock)
        assert refusals(found)["database"] == f"it did not answer within {DATABASE_S:.0f} s"
        assert len(found.checks) == 3, "what needs the database is not asked"
        done.set()
        await holding
        async with database.write() as db:
            await db.exec_driver_sql("DROP TABLE alembic_version")
        assert "cannot be used" in refusals(await stage.read(clock))["database"]
    finally:
        await database.close()


async def test_it_is_read_once_a_second_for_all_who_ask(
    running: Running, clock: ManualClock
) -> None:
    await running.stop()
    database = await Database.open(running.settings.paths.database)
    try:
        stage = Stage(database, Expiring(), clock)  # type: ignore[arg-type]
        await stage.readiness.open()
        first, second = await asyncio.gather(stage.readiness.read(), stage.readiness.read())
        assert first is second
        clock.advance(1)
        assert await stage.readiness.read() is not first
    finally:
        await database.close()


async def fill(running: Running) -> None:
    a, b = await joined(running, "a"), await joined(running, "b")
    await joined(running, "c")
    health = NodeHealth(window_s=3600, uptime=95, ready=99)
    cohort = Cohort(queue="or-ders", build_id="old", active=2, waiting=1)
    await sync(a, report("a", health=health.model_dump(), cohort=cohort.model_dump()))
    await sync(b, report("b", health=NodeHealth(window_s=9, uptime=100).model_dump()))
    release = await running.publish()
    await running.post("/v1/targets", {"release": release})


async def test_the_fleet_in_numbers(running: Running) -> None:
    await fill(running)
    found = OperatorMetrics.from_value(await running.get("/v1/operator-metrics"))
    nodes = found.nodes
    assert (nodes.total, nodes.by_status["degraded"], nodes.by_status["online"]) == (3, 1, 1)
    assert (nodes.by_status["provisioning"], nodes.by_class["gateway"]) == (1, 3)
    assert nodes.by_openclaw == {"": 1, "2026.9.6": 2}
    assert (nodes.health_lowest, nodes.health_mean, nodes.pending) == (54, 77.0, 3)
    assert (found.workers.fleet, found.workers.active) == (1, 1)
    assert (found.backlog.in_flight, found.backlog.waiting, found.backlog.blocked) == (2, 1, 0)
    assert (found.rollouts.state, found.rollouts.by_state["running"]) == ("running", 1)
    assert sum(found.rollouts.nodes.values()) == 3
    assert found.coordinator.ready
    assert found.coordinator.schema_revision == await asyncio.to_thread(newest_revision)
    rows = dict(rows_of(found))
    assert rows["nodes"] == "3: 1 provisioning, 1 online, 1 degraded"
    assert rows["health: lowest, mean"] == "54, 77"
    file = str(running.settings.paths.client)
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["operator-metrics", "--json", "--config", file]
    )
    assert json.loads(shown.stdout)["nodes"]["total"] == 3


async def metrics(running: Running, token: str | None) -> tuple[int, str, str]:
    body = ""
    reply = await running.reply("GET", "/metrics", token=token)
    if reply.status == 200:
        body = (await running.client.ask("GET", "/metrics")).decode()
    return reply.status, reply.headers["Content-Type"], body


async def test_prometheus_accepts_the_metrics_and_needs_a_viewer(running: Running) -> None:
    await asyncio.to_thread(need, "promtool", "prometheus")
    await fill(running)
    assert (await metrics(running, None))[0] == 401
    viewer = str((await running.operator("viewer"))["token"])
    status, kind, text = await metrics(running, viewer)
    assert (status, kind.startswith("text/plain; version=0.0.4")) == (200, True)
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text.encode(), capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    lines = text.splitlines()
    assert 'rollcall_fleet_nodes_by_status{status="degraded"} 1' in lines
    assert 'rollcall_node_health_score{node="a",class="gateway",site=""} 54' in lines
    assert 'rollcall_cohort_tasks{queue="or-ders",build="old",state="in_flight"} 2' in lines
    assert "rollcall_coordinator_ready 1" in lines


async def test_what_a_node_says_cannot_break_out_of_its_label(running: Running) -> None:
    numbers = OperatorMetrics.from_value(await running.get("/v1/operator-metrics"))
    evil = 'x"} 1\nrollcall_fleet_nodes 99 \\'
    view = NodeView.model_validate(
        {"name": "a", "role": "stable", "joined": 1, "site": evil, "health_score": 5}
    )
    text = render(numbers, [view], Process(1.0, 1, 1, 1.0, 1))
    (line,) = [each for each in text.splitlines() if "rollcall_node_health_score{" in each]
    assert line.endswith(r'site="x\"} 1\nrollcall_fleet_nodes 99 \\"} 5')


async def test_the_build_of_everything_can_be_seen_before_an_upgrade(running: Running) -> None:
    await fill(running)
    info = await running.get("/v1/cluster/info")
    assert info["schema_revision"] == await asyncio.to_thread(newest_revision)
    nodes = {node["name"]: node for node in info["nodes"]}
    assert (nodes["a"]["openclaw"], nodes["a"]["release"]) == ("2026.9.6", "a" * 64)
    assert (nodes["a"]["queue"], nodes["a"]["build_id"]) == ("or-ders", "old")
    assert (nodes["c"]["openclaw"], nodes["c"]["class_"]) == (None, "gateway")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_they_only_read(running: Running, method: str) -> None:
    for path in ("/v1/health", "/v1/ready", "/v1/operator-metrics", "/metrics"):
        assert (await running.reply(method, path)).status == 405
