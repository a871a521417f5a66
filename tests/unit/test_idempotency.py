"""One Idempotency-Key, one change: replayed, refused for anything else, and never carried out twice."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.api.idempotency import Asked, Replays, ReusedKeyError
from coordinator.api.versions import ChangedError, check_match
from coordinator.sealing import SealedError, Sealer
from coordinator.store.database import Database
from coordinator.store.replays import KEPT_S, MAX_KEPT, KeptAnswer, ReplayQueries, keep_answer
from coordinator.store.settling import Settlement, answered_by, settling
from shared.errors import BadInputError
from shared.wire import Wire
from tests.conftest import ManualClock
from tests.support.coordinatorkit import Reply, Running, secret_of


async def create(running: Running, key: str | None, body: Any, token: str | None = None) -> Reply:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await running.reply(
        "POST",
        "/v1/operator-tokens",
        token=token or running.settings.paths.token.read_text(),
        body=json.dumps(body).encode(),
        headers=headers,
    )


async def count(running: Running, path: str, name: str) -> int:
    return len((await running.get(path))[name])


async def test_the_first_answer_is_given_again_and_nothing_happens_twice(running: Running) -> None:
    asked = {"name": "ann", "role": "viewer"}
    first = await create(running, "k1", asked)
    again = await create(running, "k1", asked)
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert await count(running, "/v1/operator-tokens", "tokens") == 2
    made = [row for row in (await running.get("/v1/audit"))["rows"] if row["status"] == 201]
    assert len([row for row in made if row["action"] == "POST /v1/operator-tokens"]) == 1


async def test_another_request_under_the_same_key_is_refused(running: Running) -> None:
    await create(running, "k1", {"name": "ann", "role": "viewer"})
    other = await create(running, "k1", {"name": "bob", "role": "viewer"})
    assert (other.status, other.body["code"]) == (422, "key-reused")
    assert await count(running, "/v1/operator-tokens", "tokens") == 2


async def test_keys_of_two_callers_have_nothing_to_do_with_each_other(running: Running) -> None:
    admin = (await running.operator("admin"))["token"]
    for token in (None, admin):
        assert (await create(running, "k1", {"name": "x", "role": "viewer"}, token)).status == 201
    assert await count(running, "/v1/operator-tokens", "tokens") == 4


async def test_of_two_at_once_one_is_carried_out_and_both_are_answered(running: Running) -> None:
    asked = {"name": "ann", "role": "viewer"}
    replies = await asyncio.gather(*(create(running, "k1", asked) for _ in range(5)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert await count(running, "/v1/operator-tokens", "tokens") == 2


async def test_a_refusal_is_an_answer_and_a_request_of_the_wrong_shape_is_not_kept(
    running: Running,
) -> None:
    assert (await create(running, "k1", {"name": "ann"})).status == 400
    assert (await create(running, "k1", {"name": "ann", "role": "viewer"})).status == 201
    release = json.dumps({"release": "0" * 64}).encode()
    admin = running.settings.paths.token.read_text()
    replies = [
        await running.reply(
            "POST", "/v1/targets", token=admin, body=release, headers={"Idempotency-Key": "t"}
        )
        for _ in range(2)
    ]
    assert [reply.status for reply in replies] == [404, 404]
    assert replies[1].headers["Idempotency-Replayed"] == "true"
    assert replies[1].headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "é"])
async def test_a_key_of_another_form_is_refused(running: Running, key: str) -> None:
    reply = await create(running, key, {"name": "ann", "role": "viewer"})
    assert (reply.status, reply.body["code"]) == (400, "bad-input")


async def test_a_secret_is_sealed_on_disk_and_given_again_after_a_restart(running: Running) -> None:
    asked = {"name": "ann", "role": "viewer"}
    made = await create(running, "k1", asked)
    await running.restart()
    secret = secret_of(made.body["token"]).encode()
    home = running.settings.paths.root
    files = [path for path in home.rglob("*") if path.is_file()]
    assert running.settings.paths.database in files
    assert all(secret not in path.read_bytes() for path in files)
    again = await create(running, "k1", asked)
    assert (again.status, again.body) == (201, made.body)
    running.settings.paths.seal.write_bytes(bytes(32))
    await running.restart()
    lost = await create(running, "k1", asked)
    assert (lost.status, lost.body["code"]) == (409, "sealed")
    assert await count(running, "/v1/operator-tokens", "tokens") == 2


async def test_an_answer_outlives_the_coordinator_that_gave_it(running: Running) -> None:
    release = await running.publish()
    admin = running.settings.paths.token.read_text()

    async def plan() -> Reply:
        return await running.reply(
            "POST",
            "/v1/targets",
            token=admin,
            body=json.dumps({"release": release, "dry_run": True}).encode(),
            headers={"Idempotency-Key": "plan"},
        )

    first = await plan()
    await running.restart()
    again = await plan()
    assert again.body == first.body
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.fixture
async def database(tmp_path: Path) -> Any:
    made = await Database.open(tmp_path / "db")
    yield made
    await made.close()


class Handler:
    """Counts how often it is run; ends as the test says. `noted` are the statuses of its answers that were noted."""

    def __init__(self, *, status: int = 200, error: Exception | None = None) -> None:
        self.runs, self.status, self.error = 0, status, error
        self.noted: list[int] = []

    async def __call__(self) -> tuple[web.StreamResponse, bool]:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return web.json_response({"run": self.runs}, status=self.status), False

    async def note(self, _: AsyncConnection, status: int) -> None:
        self.noted.append(status)

    async def once(self, replays: Replays, asked: Asked) -> tuple[web.StreamResponse, bool]:
        return await replays.once(asked, self, self.note)


ASKED = Asked("ann", "k", "a" * 64)


def replays_of(database: Database, clock: ManualClock) -> Replays:
    return Replays(ReplayQueries(database), Sealer(bytes(32)), clock)


async def test_what_was_cut_short_runs_again_and_its_answer_is_noted_once(
    database: Database, clock: ManualClock
) -> None:
    dies, handler = Handler(error=OSError("killed here")), Handler()
    replays = replays_of(database, clock)
    with pytest.raises(OSError, match="killed"):
        await dies.once(replays, ASKED)
    answer, replayed = await handler.once(replays, ASKED)
    assert (answer.status, replayed, handler.runs) == (200, False, 1)
    _, replayed = await handler.once(replays, ASKED)
    assert (replayed, handler.runs, handler.noted) == (True, 1, [200])


async def test_what_failed_here_may_be_tried_again_and_a_day_later_all_is_forgotten(
    database: Database, clock: ManualClock
) -> None:
    replays = replays_of(database, clock)
    handler = Handler(status=503)
    for _ in range(2):
        await handler.once(replays, ASKED)
    assert handler.runs == 2
    good = Handler()
    await good.once(replays, ASKED)
    clock.advance(KEPT_S + 1)
    other = Asked("ann", "k", "b" * 64)
    await good.once(replays, other)
    assert good.runs == 2
    with pytest.raises(ReusedKeyError):
        await good.once(replays, ASKED)


async def test_what_one_caller_can_have_kept_is_bounded(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    answer = KeptAnswer(200, "application/json", None, b"{}")

    async def keep(key: str, caller: str) -> None:
        async with database.write() as db:
            await keep_answer(db, key, caller, "a" * 64, answer, clock.now())

    for number in range(MAX_KEPT + 5):
        clock.advance(1)
        await keep(f"{number:064}", "ann")
    await keep("f" * 64, "bob")
    with sqlite3.connect(tmp_path / "db") as raw:
        found = dict(raw.execute("SELECT caller, count(*) FROM replays GROUP BY caller"))
    raw.close()
    assert found == {"ann": MAX_KEPT, "bob": 1}


class Said(Wire):
    words: str


async def test_an_answer_goes_with_the_very_write_that_it_is_about(database: Database) -> None:
    kept: list[Wire | None] = []

    async def keep(_: AsyncConnection, answer: Wire | None) -> bool:
        kept.append(answer)
        return isinstance(answer, Said)

    settlement = Settlement(keep)
    with settling(settlement):
        async with database.write():
            pass
        assert not kept, "nothing was said yet"
        answered_by(Said(words="refused"))
        with pytest.raises(OSError, match="full"):
            async with database.write():
                raise OSError("the disk is full")
        async with database.write():
            pass
        assert not kept, "what was rolled back answers nothing"
        async with database.write():
            answered_by(None)
        assert (kept, settlement.done) == ([None], False)
        answered_by(Said(words="made"))
        async with database.read():
            pass
        assert len(kept) == 1, "reading makes nothing"
        async with database.write():
            pass
        answered_by(Said(words="too late"))
        async with database.write():
            pass
    assert (kept, settlement.done) == ([None, Said(words="made")], True)
    answered_by(Said(words="nobody asked"))
    async with database.write():
        pass
    assert len(kept) == 2


def test_a_sealed_answer_is_opened_only_where_it_belongs() -> None:
    sealed = Sealer(bytes(32)).seal(b"text", "a")
    assert Sealer(bytes(32)).open(sealed, "a") == b"text"
    for sealer, about, raw in (
        (Sealer(bytes(32)), "b", sealed),
        (Sealer(b"x" * 32), "a", sealed),
        (Sealer(bytes(32)), "a", sealed[:5]),
    ):
        with pytest.raises(SealedError):
            sealer.open(raw, about)


def test_a_change_is_made_only_to_what_its_sender_has_seen() -> None:
    check_match(None, "3")
    check_match('"2", "3"', "3")
    check_match("*", "3")
    for header, version in (('"2"', "3"), ('W/"3"', "3"), ("*", None), ('"3"', None)):
        with pytest.raises(ChangedError):
            check_match(header, version)
    for header in ("3", '"3', "", '"3", 4'):
        with pytest.raises(BadInputError):
            check_match(header, "3")
