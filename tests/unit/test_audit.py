"""The audit log: what goes into it, and that no change of it goes unseen."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from coordinator.api.recorder import REFUSALS_KEPT, WINDOW_S, Recorder
from coordinator.audit import GENESIS, AuditRow, BrokenChainError, Chain, Entry, next_row
from coordinator.cli import app
from coordinator.operators import make_token
from coordinator.store.audit import AuditLog
from coordinator.store.database import Database
from shared.errors import UsageError
from tests.conftest import ManualClock
from tests.support.coordinatorkit import Running, joined, secret_of, sync

Rows = list[dict[str, Any]]
FIELDS = tuple(AuditRow.model_fields)


def an_entry(number: int = 0, *, status: int = 200, who: str = "alice [00000000]") -> Entry:
    return Entry(
        who=who,
        role="operator",
        address="10.0.0.1",
        action="POST /v1/targets",
        subject=f"rollout {number}",
        status=status,
        detail="",
    )


def rows_of(count: int) -> Rows:
    found: Rows = []
    prev = GENESIS
    for number in range(1, count + 1):
        row = next_row(number, prev, an_entry(number), 1_800_000_000.5 + number)
        prev = row.sha256
        found.append(row.model_dump(mode="json"))
    return found


def verify(rows: Rows, expect: str | None = None) -> Chain:
    chain = Chain()
    for row in rows:
        chain.add(row)
    if expect is not None:
        chain.must_contain(expect)
    return chain


def test_a_log_that_nobody_touched_verifies() -> None:
    rows = rows_of(5)
    chain = verify(rows, expect=rows[2]["sha256"])
    assert (chain.count, chain.head) == (5, rows[-1]["sha256"])
    assert verify([]).head == GENESIS


@given(
    number=st.integers(0, 4),
    name=st.sampled_from(FIELDS),
    value=st.none() | st.integers(0, 600) | st.text(max_size=70) | st.floats(allow_nan=False),
)
def test_a_change_of_any_field_of_any_row_is_found(number: int, name: str, value: object) -> None:
    rows = rows_of(5)
    if rows[number][name] == value:
        return
    rows[number][name] = value
    with pytest.raises(BrokenChainError, match=f"row {number + 1} "):
        verify(rows)


@given(st.integers(0, 3))
def test_a_row_taken_out_of_the_middle_is_found(number: int) -> None:
    rows = rows_of(5)
    del rows[number]
    with pytest.raises(BrokenChainError, match=f"row {number + 1} is missing"):
        verify(rows)


@given(st.permutations(range(5)))
def test_rows_in_another_order_are_found(order: list[int]) -> None:
    rows = rows_of(5)
    moved = [rows[number] for number in order]
    if moved == rows:
        return
    with pytest.raises(BrokenChainError):
        verify(moved)


@given(st.integers(0, 4))
def test_a_cut_tail_shows_with_an_earlier_head(left: int) -> None:
    rows = rows_of(5)
    verify(rows[:left])
    with pytest.raises(BrokenChainError, match="cut or written anew"):
        verify(rows[:left], expect=rows[-1]["sha256"])


def test_a_log_written_anew_from_some_row_on_shows_with_an_earlier_head() -> None:
    rows = rows_of(5)
    forged = rows[:2]
    for number in (3, 4, 5):
        entry = an_entry(number, who="mallory [00000000]")
        forged.append(next_row(number, forged[-1]["sha256"], entry, 1.0).model_dump(mode="json"))
    verify(forged, expect=rows[1]["sha256"])
    with pytest.raises(BrokenChainError, match="cut or written anew"):
        verify(forged, expect=rows[2]["sha256"])


async def log_of(running: Running) -> Rows:
    return list((await running.get("/v1/audit?limit=500"))["rows"])


async def test_every_change_is_written_and_nothing_else(running: Running) -> None:
    layout = await joined(running, "a")
    await sync(layout)
    await running.publish()
    await running.post("/v1/targets", {"release": "2026.9.6", "dry_run": True})
    await running.get("/v1/nodes")
    rows = await log_of(running)
    seen = [(row["action"], row["role"], row["status"]) for row in rows]
    assert seen == [
        ("admin token at start", "-", 201),
        ("POST /v1/trust", "admin", 200),
        ("POST /v1/node-tokens", "admin", 201),
        ("POST /v1/join", "-", 201),
        ("PUT /v1/blobs/{sha256}", "admin", 204),
        ("POST /v1/trust", "admin", 200),
        ("POST /v1/targets", "admin", 200),
    ]
    assert [row["subject"] for row in rows[3:6:2]] == ["a", "2026.9.6.release.json"]
    assert rows[1]["who"].startswith("first [")
    assert {row["address"] for row in rows[1:]} == {"127.0.0.1"}
    verify(rows)


async def test_refusals_are_written_with_their_reason(running: Running) -> None:
    layout = await joined(running, "a")
    viewer = (await running.operator("viewer"))["token"]
    before = len(await log_of(running))
    target = ("POST", "/v1/targets")
    await running.reply(*target, body=b"{}")
    await running.reply(*target, token=viewer, body=b"{}")
    await running.reply(*target, node=layout, body=b"{}")
    await running.reply("GET", "/v1/nodes", token=make_token())
    await running.reply("GET", "/v1/nodes")
    await running.reply("DELETE", "/v1/operator-tokens/..;rm", token=viewer)
    rows = (await log_of(running))[before:]
    assert [(row["role"], row["status"]) for row in rows] == [
        ("-", 401),
        ("viewer", 403),
        ("node", 403),
        ("-", 401),
        ("viewer", 403),
    ]
    assert "operator is needed" in rows[1]["detail"]
    assert rows[2]["who"] == "a"
    assert rows[3]["action"] == "GET /v1/nodes", "a refused login counts on whatever route"


async def test_what_failed_in_the_coordinator_is_written_too(running: Running) -> None:
    await asyncio.to_thread(tamper, running, "DROP TABLE join_tokens")
    admin = running.settings.paths.token.read_text()
    reply = await running.reply("POST", "/v1/node-tokens", token=admin, body=b"{}")
    assert reply.status == 500
    assert "join_tokens" not in str(reply.body)
    assert (await log_of(running))[-1]["status"] == 500


async def test_no_secret_is_written(running: Running) -> None:
    made = await running.operator("viewer")
    guess = make_token()
    await running.reply("GET", "/v1/nodes", token=guess)
    text = str(await log_of(running))
    for token in (made["token"], guess):
        assert secret_of(token) not in text


async def test_the_log_goes_on_over_a_restart(running: Running) -> None:
    await running.operator("viewer")
    await running.restart()
    await running.operator("viewer")
    assert verify(await log_of(running)).count == 4


async def test_pages_follow_each_other(running: Running) -> None:
    for _ in range(3):
        await running.token()
    rows: Rows = []
    for _ in range(3):
        page = await running.get(f"/v1/audit?after={len(rows)}&limit=2")
        assert page["last"] == 5
        rows += page["rows"]
    assert verify(rows).count == 5


async def test_a_flood_of_refusals_leaves_a_bounded_number_of_rows(tmp_path: Path) -> None:
    clock = ManualClock()
    database = await Database.open(tmp_path / "a.db")
    log = AuditLog(database)
    recorder = Recorder(log, clock)
    for _ in range(REFUSALS_KEPT + 100):
        await recorder.record(an_entry(status=401, who="-"))
    await recorder.record(an_entry(status=403))
    await recorder.record(an_entry(status=201))
    assert await log.last() == REFUSALS_KEPT + 2, "others are not drowned by it"
    clock.advance(WINDOW_S)
    await recorder.settle()
    rows = await log.page(0, 500)
    assert rows[-1]["detail"].startswith("100 more refused requests")
    assert rows[-1]["address"] == "10.0.0.1"
    await recorder.record(an_entry(status=401, who="-"))
    assert await log.last() == REFUSALS_KEPT + 4, "a new window"
    verify(rows)
    await database.close()


async def test_the_database_refuses_to_change_the_log(running: Running) -> None:
    await running.token()
    for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            await asyncio.to_thread(tamper, running, statement, by_force=False)


def tamper(running: Running, statement: str, *, by_force: bool = True) -> None:
    """As somebody would who has the coordinator's disk."""
    database = sqlite3.connect(running.settings.paths.database, timeout=10)
    try:
        with database:
            if by_force:
                database.execute("DROP TRIGGER IF EXISTS audit_no_update")
                database.execute("DROP TRIGGER IF EXISTS audit_no_delete")
            database.execute(statement)
    finally:
        database.close()


def run_verify(running: Running, *options: str) -> Result:
    config = str(running.settings.paths.client)
    return CliRunner().invoke(app, ["audit", "verify", "--config", config, *options])


SWAP = (
    "UPDATE audit SET id = CASE id WHEN 2 THEN -1 ELSE -2 END WHERE id IN (2, 3)",
    "UPDATE audit SET id = CASE id WHEN -1 THEN 3 ELSE 2 END WHERE id < 0",
)


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (("UPDATE audit SET subject = 'x' WHERE id = 3",), "row 3 was changed"),
        (("UPDATE audit SET at = 'soon' WHERE id = 2",), "row 2 is damaged"),
        (("DELETE FROM audit WHERE id = 2",), "row 2 is missing"),
        (SWAP, "row 2 does not follow"),
        (("DELETE FROM audit WHERE id > 2",), "cut or written anew"),
    ],
)
async def test_the_command_line_finds_what_was_done_to_the_log(
    running: Running, statements: tuple[str, ...], complaint: str
) -> None:
    for _ in range(3):
        await running.token()
    good = await asyncio.to_thread(run_verify, running)
    assert good.exit_code == 0
    head = good.stdout.strip()
    for statement in statements:
        await asyncio.to_thread(tamper, running, statement)
    found = await asyncio.to_thread(run_verify, running, "--expect", head)
    assert isinstance(found.exception, BrokenChainError)
    assert complaint in found.exception.message
    assert found.exception.exit_code == 1


async def test_the_command_line_goes_through_every_page(running: Running) -> None:
    await running.token()
    options = ["--config", str(running.settings.paths.client)]
    listed = await asyncio.to_thread(
        CliRunner().invoke, app, ["audit", "list", "--limit", "2", *options]
    )
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == ["ID", "2", "3"]
    with_json = await asyncio.to_thread(run_verify, running, "--json")
    assert '"count": 3' in with_json.stdout
    wrong = await asyncio.to_thread(run_verify, running, "--expect", "abc")
    assert isinstance(wrong.exception, UsageError)
