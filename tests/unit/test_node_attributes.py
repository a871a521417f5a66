"""What operators say of nodes, how lists are filtered by it, and the history of upgrades (seed 003)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from typer.testing import CliRunner, Result

from agent.layout import Layout
from agent.trust import load_trust
from coordinator.cli import app
from coordinator.cli.nodetext import Sort, Wanted, sort_nodes
from coordinator.store.database import MIGRATIONS, Database
from coordinator.store.nodes import NodeQueries
from shared.errors import UsageError
from shared.http import RefusedError
from shared.messages import Verdict
from shared.nodes import NodeHealth, NodeStatus
from shared.report import NodeReport, ReadinessSummary, UpgradeReport
from shared.rollout import NodeView
from shared.roster import NodeClass, Role
from tests.support.coordinatorkit import Running, joined, sync


def cli(running: Running, *words: str) -> Result:
    file = str(running.settings.paths.client)
    return CliRunner().invoke(app, [*words, "--config", file])


def report(name: str, **said: Any) -> NodeReport:
    base = {
        "node": name,
        "agent_version": "0.1.0",
        "release": "a" * 64,
        "readiness": ReadinessSummary(status=Verdict.GREEN),
    }
    return NodeReport.model_validate({**base, **said})


async def one(running: Running, name: str) -> dict[str, Any]:
    return dict((await running.get(f"/v1/nodes/{name}"))["node"])


async def test_attributes_are_kept_and_only_what_is_named_changes(running: Running) -> None:
    await joined(running, "a")
    words = ["--class", "worker", "--provider", "hetzner", "--region", "fsn1", "--site", "rack-7"]
    more = ["--address", "ssh://10.0.0.7", "--label", "team=blue", "--label", "env=prod"]
    first = await asyncio.to_thread(cli, running, "node", "set", "a", *words, *more)
    assert "a: class changed from gateway to worker" in first.stderr
    assert "a: labels changed from - to env=prod, team=blue" in first.stderr
    second = await asyncio.to_thread(
        cli, running, "node", "set", "a", "--remove-label", "team", "--region", ""
    )
    assert second.exit_code == 0
    await running.restart()
    node = await one(running, "a")
    assert (node["class_"], node["provider"], node["site"]) == ("worker", "hetzner", "rack-7")
    assert (node["labels"], node["region"]) == ({"env": "prod"}, "")
    assert node["address"] == "ssh://10.0.0.7"
    again = await asyncio.to_thread(cli, running, "node", "set", "a", "--class", "worker")
    assert "a is like that already" in again.stderr


async def test_a_dry_run_changes_nothing(running: Running) -> None:
    await joined(running, "a")
    tried = await asyncio.to_thread(
        cli, running, "node", "set", "a", "--class", "scheduler", "--dry-run", "--json"
    )
    assert json.loads(tried.stdout)["changed"] == ["class_"]
    assert (await one(running, "a"))["class_"] == "gateway"


async def test_a_new_role_reaches_the_nodes_signed(running: Running) -> None:
    """It stands in the roster, which every node verifies."""
    layout = await joined(running, "a", Role.STABLE)
    await asyncio.to_thread(cli, running, "node", "set", "a", "--role", "canary")
    answer = await sync(layout)
    trust = await asyncio.to_thread(load_trust, layout)
    before = trust.role
    assert answer.roster is not None
    await trust.accept_roster(answer.roster.encode())
    assert (before, trust.role) == (Role.STABLE, Role.CANARY)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("a",), "nothing to set"),
        (("a", "--label", "team"), "not of the form key=value"),
        (("../a", "--class", "worker"), "no node's name"),
        (("b", "--class", "worker"), "no node 'b' has joined"),
        (("a", "--label", "Team=x"), "pattern"),
        (("a", "--provider", "x" * 65), "64"),
        (("a", "--site", "Rack 7"), "pattern"),
    ],
)
async def test_wrong_words_are_refused(
    running: Running, words: tuple[str, ...], complaint: str
) -> None:
    await joined(running, "a")
    result = await asyncio.to_thread(cli, running, "node", "set", *words)
    assert isinstance(result.exception, UsageError | RefusedError)
    assert complaint in str(result.exception)


async def test_there_are_only_so_many_labels(running: Running) -> None:
    await joined(running, "a")
    for start in (0, 20):
        labels = {f"k{number}": "v" for number in range(start, start + 20)}
        body = json.dumps({"labels": labels}).encode()
        reply = await running.reply(
            "PUT",
            "/v1/nodes/a/attributes",
            token=running.settings.paths.token.read_text(),
            body=body,
        )
        assert reply.status == (200 if start == 0 else 400)
    assert len((await one(running, "a"))["labels"]) == 20


def view(name: str, **said: Any) -> NodeView:
    return NodeView.model_validate({"name": name, "role": "stable", "joined": 1, **said})


NODES = [
    view("c", node_status="online", health_score=90, version_running="2026.10.1", site="x"),
    view("a", node_status="offline", health_score=0, class_="worker", labels={"team": "blue"}),
    view("b", node_status="error", version_running="2026.9.6", role="canary", labels={"team": ""}),
]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), "cab"),
        (Wanted(status=NodeStatus.OFFLINE), "a"),
        (Wanted(class_=NodeClass.GATEWAY), "cb"),
        (Wanted(role=Role.CANARY), "b"),
        (Wanted(site="x"), "c"),
        (Wanted(labels=["team"]), "ab"),
        (Wanted(labels=["team=blue"]), "a"),
        (Wanted(labels=["team="]), "b"),
        (Wanted(labels=["team=blue", "env"]), ""),
    ],
)
def test_filters(wanted: Wanted, names: str) -> None:
    assert "".join(node.name for node in NODES if wanted.fits(node)) == names


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (Sort.NAME, "abc"),
        (Sort.STATUS, "bac"),
        (Sort.HEALTH, "bac"),
        (Sort.VERSION, "abc"),
        (Sort.CLASS, "bca"),
        (Sort.SITE, "abc"),
        (Sort.HEARD, "abc"),
    ],
)
def test_orders(by: Sort, names: str) -> None:
    assert "".join(node.name for node in sort_nodes(NODES, by)) == names


async def test_lists_show_status_and_health_and_filter(running: Running) -> None:
    a, _ = await joined(running, "a"), await joined(running, "b")
    health = NodeHealth(window_s=3600, uptime=95, ready=99, crashes=0)
    await sync(a, report("a", health=health.model_dump()))
    listed = await asyncio.to_thread(cli, running, "node", "list", "--status", "degraded")
    header, *rows = [line.split("\t") for line in listed.stdout.splitlines()]
    assert header[:6] == ["NODE", "STATUS", "HEALTH", "CLASS", "ROLE", "SITE"]
    assert [row[:5] for row in rows] == [["a", "degraded", "54", "gateway", "stable"]]
    none = await asyncio.to_thread(cli, running, "node", "list", "--class", "worker")
    assert none.stderr == "no node is like that\n"
    every = await asyncio.to_thread(cli, running, "node", "list", "--sort", "status", "--json")
    assert [node["name"] for node in json.loads(every.stdout)["nodes"]] == ["a", "b"]
    shown = await asyncio.to_thread(cli, running, "node", "show", "a")
    said = "degraded, class gateway, health 54 (up 95 %, ready 99 %, crashes 0, over 1 h 0 min)"
    assert f"  status    {said}" in shown.stdout.splitlines()


def upgrade(rollout: str, name: str, outcome: str | None, **said: Any) -> UpgradeReport:
    base = {
        "order": f"{rollout}:{name}",
        "release": "b" * 64,
        "phase": outcome or "proven",
        "outcome": outcome,
        "version_before": "2026.9.5",
        "version_after": "2026.9.6",
        "began": 1000.0,
        "ended": None if outcome is None else 1090.0,
    }
    return UpgradeReport.model_validate({**base, **said})


async def history(running: Running, name: str) -> list[dict[str, Any]]:
    return list((await running.get(f"/v1/nodes/{name}/upgrades"))["upgrades"])


async def begin(running: Running, layout: Layout) -> tuple[str, str]:
    """A rollout, and the release that it goes to."""
    await sync(layout, report("a"))
    release = await running.publish()
    rollout = await running.post("/v1/targets", {"release": release, "strategy": "immediate"})
    return str(rollout["id"]), release


async def test_ended_upgrades_make_a_history(running: Running) -> None:
    """Once, however often it is reported; with who asked for it and what agent there was before."""
    layout = await joined(running, "a")
    rollout, release = await begin(running, layout)
    pending = (await one(running, "a"))["pending"]
    assert (pending["release"], pending["strategy"], pending["set_by"]) == (
        release,
        "immediate",
        "first",
    )
    said = {"release": release, "agent_version": "0.2.0"}
    await sync(layout, report("a", upgrade=upgrade(rollout, "a", None, release=release)))
    assert await history(running, "a") == []
    ended = upgrade(rollout, "a", "done", release=release, outage_s=2.5)
    for _ in range(2):
        await sync(layout, report("a", upgrade=ended, **said))
    await running.restart()
    await sync(layout, report("a", upgrade=ended, **said))
    (entry,) = await history(running, "a")
    assert (entry["from_core"], entry["to_core"]) == ("2026.9.5", "2026.9.6")
    assert (entry["from_agent"], entry["to_agent"]) == ("0.1.0", "0.2.0")
    assert (entry["status"], entry["by"], entry["strategy"]) == ("success", "first", "immediate")
    assert (entry["duration_s"], entry["outage_s"], entry["error"]) == (90.0, 2.5, "")
    assert (entry["label"], entry["order"]) == (f"2026.9.6 ({release[:12]})", f"{rollout}:a")
    shown = await asyncio.to_thread(cli, running, "node", "history", "a")
    (cells,) = (row for line in shown.stdout.splitlines() if "success" in (row := line.split("\t")))
    assert cells[1:6] == [
        "success",
        "2026.9.5 -> 2026.9.6",
        "0.1.0 -> 0.2.0",
        f"2026.9.6 ({release[:12]})",
        "90 s, out 2.5 s",
    ]


async def test_a_restart_has_nothing_to_write_that_is_written(running: Running) -> None:
    """Thousands of agents report at once then. What was not written when the coordinator ended is made up for."""
    a, b = await joined(running, "a"), await joined(running, "b")
    await sync(a, report("a", upgrade=upgrade("0" * 8, "a", "done")))
    await sync(b, report("b", upgrade=upgrade("0" * 8, "b", "done")))
    await running.stop()

    def count() -> tuple[int, int]:
        with sqlite3.connect(running.settings.paths.database) as file:
            (changes,) = file.execute("SELECT total FROM written").fetchone()
            (rows,) = file.execute("SELECT count(*) FROM node_upgrades").fetchone()
        file.close()
        return int(changes), int(rows)

    def watch() -> None:
        with sqlite3.connect(running.settings.paths.database) as file:
            file.execute("DELETE FROM node_upgrades WHERE node = 'b'")
            file.execute("CREATE TABLE written (total INTEGER)")
            file.execute("INSERT INTO written VALUES (0)")
            count_it = "BEGIN UPDATE written SET total = total + 1; END"
            file.execute(f"CREATE TRIGGER one AFTER INSERT ON node_upgrades {count_it}")
            file.execute(f"CREATE TRIGGER two AFTER INSERT ON agent_versions {count_it}")
        file.close()

    await asyncio.to_thread(watch)
    await running.restart()
    await sync(a, report("a", upgrade=upgrade("0" * 8, "a", "done")))
    assert await asyncio.to_thread(count) == (0, 1)
    await sync(b, report("b", upgrade=upgrade("0" * 8, "b", "done")))
    assert await asyncio.to_thread(count) == (1, 2)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("rolled_back", "rolled_back"),
        ("dropped", "failed"),
        ("stuck", "failed"),
    ],
)
async def test_how_else_an_upgrade_ends(running: Running, outcome: str, status: str) -> None:
    """Of a rollout that nobody knows any more, as after a backup of the database was put back."""
    layout = await joined(running, "a")
    after = upgrade("0" * 8, "a", outcome, reason="the gateway hangs", version_after="2026.9.5")
    await sync(layout, report("a", upgrade=after))
    (entry,) = await history(running, "a")
    assert (entry["status"], entry["outcome"], entry["by"]) == (status, outcome, "")
    assert entry["error"] == "the gateway hangs"


async def test_a_rollback_after_the_end_replaces_what_was_known(running: Running) -> None:
    layout = await joined(running, "a")
    await sync(layout, report("a", upgrade=upgrade("0" * 8, "a", "done")))
    again = upgrade("0" * 8, "a", "rolled_back", reason="asked for", ended=2000.0)
    await sync(layout, report("a", upgrade=again))
    (entry,) = await history(running, "a")
    assert (entry["status"], entry["ended"]) == ("rolled_back", 2000.0)


async def test_a_node_shows_its_last_ten(running: Running) -> None:
    layout = await joined(running, "a")
    for number in range(12):
        ended = upgrade(f"{number:08x}", "a", "done", began=1000.0 + number)
        await sync(layout, report("a", upgrade=ended))
    detail = await running.get("/v1/nodes/a")
    begins = [each["began"] for each in detail["upgrades"]]
    assert begins == [1011.0 - number for number in range(10)]
    assert len(await history(running, "a")) == 12
    last = await running.get("/v1/nodes/a/upgrades?limit=1")
    assert len(last["upgrades"]) == 1


async def test_nodes_of_before_are_gateways_without_labels(tmp_path: Path) -> None:
    """A database of the version before, and back to it."""
    path = tmp_path / "old.db"

    def move(revision: str, statement: str = "") -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        engine = create_engine(f"sqlite:///{path}")
        try:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                step = command.upgrade if statement else command.downgrade
                step(config, revision)
                if statement:
                    connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    row = "INSERT INTO nodes (name, role, site, key, joined, revoked) VALUES"
    await asyncio.to_thread(move, "0003", f"{row} ('a', 'canary', 'x', 'k', 1, 0)")
    database = await Database.open(path)
    try:
        (node,) = await NodeQueries(database).nodes()
    finally:
        await database.close()
    assert node.about.model_dump() == {
        "role": Role.CANARY,
        "class_": NodeClass.GATEWAY,
        "site": "x",
        "provider": "",
        "region": "",
        "address": "",
        "labels": {},
    }
    await asyncio.to_thread(move, "0003")
    assert await asyncio.to_thread(columns_of, path) == {
        "name",
        "role",
        "site",
        "key",
        "joined",
        "revoked",
        "heard",
        "report",
    }


def columns_of(path: Path) -> set[str]:
    file = sqlite3.connect(path)
    try:
        return {str(row[1]) for row in file.execute("PRAGMA table_info(nodes)")}
    finally:
        file.close()
