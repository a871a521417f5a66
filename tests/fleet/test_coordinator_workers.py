"""What the coordinator does by itself, killed at each of its writes: before the commit, and after it once it is made
again. What is there in the end is as if nothing had been (fault 38)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.bundling import BundleRequest, make_bundle
from coordinator.ceremony import add_capability
from shared.clock import SystemClock
from shared.errors import RollcallError
from shared.messages import Clear
from shared.npm import Npm, find_tools
from shared.roster import Role
from tests.support.alertkit import HOOK, Receiver, receiving
from tests.support.coordinatorkit import joined
from tests.support.mortal import Mortal, run_mortal
from tests.support.rolloutkit import Player
from tests.unit.test_capability_api import Player as Performer

BEFORE, AFTER = "written.committing", "written.committed"
WRITES = 3
"""Of a life at most, before it ends: the first is often a node's heartbeat, and the work has to go on as well."""
AWAY = (RollcallError, aiohttp.ClientError, ConnectionError)
SKILL = "---\nname: hello\ndescription: Says hello.\n---\n\nSay hello.\n"
PATIENCE_S = 400.0
STARTING, LEAST_STARTING = 6, 6
"""Writes of a start, at least so many kills among them."""


class Reaper:
    """Kills at the first, second or third write of a life, now before it is durable and now after, for as long as it
    is told to."""

    def __init__(self, mortal: Mortal) -> None:
        self._mortal, self._deaths, self._stopping = mortal, 0, False
        self._lives = asyncio.Event()
        self.kills: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            place = BEFORE if self._deaths % 2 == 0 else AFTER
            if not self._stopping:
                self._mortal.mother.arm(f"{place}#{1 + self._deaths // 2 % WRITES}")
            self._lives.set()
            await self._mortal.died(None)
            self._lives.clear()
            self._deaths += 1
            self.kills[place] += 1
            await self._mortal.start()

    async def stop(self) -> None:
        """Whoever lives then lives on."""
        self._stopping = True
        self._mortal.mother.arm()
        await asyncio.sleep(0.5)
        await self._lives.wait()


@asynccontextmanager
async def reaped(mortal: Mortal) -> AsyncIterator[Reaper]:
    reaper = Reaper(mortal)
    task = asyncio.create_task(reaper.run())
    try:
        yield reaper
    finally:
        await reaper.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(ask: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Asks again and again, whoever answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(*AWAY):
                if holds(found := await ask()):
                    return found
            await asyncio.sleep(0.1)


async def told(node: Player, *messages: Any) -> None:
    async def says() -> bool:
        await node.says(*messages)
        return True

    await until(says, bool)


async def sign(mortal: Mortal) -> None:
    folder = mortal.root / "hello"
    folder.mkdir()
    (folder / "SKILL.md").write_text(SKILL)
    now = SystemClock().now()
    made = await make_bundle(
        BundleRequest(folder, "canary", version="1.0.0"), Npm(find_tools()), now
    )
    published = await asyncio.to_thread((await mortal.desk()).published, mortal.client)
    bundle = add_capability(published, made.manifest, made.files, now)
    await mortal.offer(mortal.operator_keys.sign(bundle, published.root.signed))


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
async def mortal(tmp_path: Path, hook: Receiver) -> AsyncIterator[Mortal]:
    async with run_mortal(tmp_path, HOOK.format(url=hook.url)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_run_of_gates_is_carried_on_and_each_order_is_made_once(mortal: Mortal) -> None:
    await sign(mortal)
    performers = [
        Performer(await joined(mortal, name, role), mortal, name, "a" * 64)
        for name, role in (("canary", Role.CANARY), ("stable", Role.STABLE))
    ]
    runs = {}
    for performer in performers:
        await performer.turn()
    for verb in ("publish", "unpublish"):
        made = await mortal.post(f"/v1/capabilities/{verb}", {"capability": "hello"})
        path = f"/v1/capability-runs/{made['id']}"
        async with reaped(mortal) as reaper, asyncio.TaskGroup() as group:
            playing = [group.create_task(each.play()) for each in performers]
            ended = await until(
                partial(mortal.get, path),
                lambda run: run["state"] not in ("running", "rolling_back"),
            )
            runs[verb] = ended
            for task in playing:
                task.cancel()
        assert min(reaper.kills[BEFORE], reaper.kills[AFTER]) >= len(ended["gates"]) // WRITES
    assert {run["state"] for run in runs.values()} == {"succeeded"}, runs
    listed = (await mortal.get("/v1/orders"))["orders"]
    orders = Counter((order["kind"], order["node"], order["state"]) for order in listed)
    assert orders == {
        (kind, node, "completed"): 1
        for kind in ("install_capability", "remove_capability")
        for node in ("canary", "stable")
    }
    for order in listed:
        events = (await mortal.get(f"/v1/orders/{order['id']}"))["events"]
        counted = Counter(each["event"] for each in events)
        assert (counted["create"], counted["complete"]) == (1, 1), events


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_an_alert_begins_and_ends_once_and_each_is_told_under_one_id(
    mortal: Mortal, hook: Receiver
) -> None:
    node = await asyncio.to_thread(Player, await joined(mortal, "canary", Role.CANARY))
    red = node.red()

    def heard(change: str) -> list[str]:
        found = [each.json for each in hook.received]
        return [each["id"] for each in found if each["type"].endswith(change)]

    async def firing() -> Any:
        return heard("firing")

    async def resolved() -> Any:
        return heard("resolved")

    async with reaped(mortal) as reaper:
        await told(node, red)
        await until(firing, bool)
        await until(lambda: mortal.get("/v1/alert-channels"), nothing_waits)
    assert min(reaper.kills.values()) >= 2
    await node.says(node.sign(Clear(ref=red.key, reason="repaired"), 1.8e9))
    await until(lambda: asyncio.to_thread(gone, mortal.settings.paths.database), bool)
    await mortal.kill()
    await asyncio.to_thread(pass_time, mortal.settings.paths.database)
    await mortal.start()
    async with reaped(mortal):
        await until(resolved, bool)
        await until(lambda: mortal.get("/v1/alert-channels"), nothing_waits)
    ended = (await mortal.get("/v1/alert-history"))["alerts"]
    mine = next(each for each in ended if each["rule"] == "red-open")
    history = (await mortal.get(f"/v1/alerts/{mine['id']}"))["history"]
    assert [each["change"] for each in history] == ["firing", "resolved"]
    assert (len(set(heard("firing"))), len(set(heard("resolved")))) == (1, 1)


def nothing_waits(answer: Any) -> bool:
    return all(each["queued"] == 0 for each in answer["channels"])


def gone(database: Path) -> bool:
    """Whether the coordinator has seen that the red is over."""
    with sqlite3.connect(database) as db:
        bodies = db.execute("SELECT body FROM alerts WHERE rule = 'red-open'").fetchall()
    db.close()
    return all(json.loads(body)["gone"] is not None for (body,) in bodies)


def pass_time(database: Path) -> None:
    """As if the red had ended, and orders been made, an hour ago."""
    with sqlite3.connect(database) as db:
        for table, key in (("alerts", "gone"), ("orders", "created"), ("orders", "expires")):
            for id_, raw in db.execute(f"SELECT id, body FROM {table}").fetchall():  # noqa: S608
                body = json.loads(raw)
                if body.get(key) is not None:
                    body[key] -= 3600
                db.execute(
                    f"UPDATE {table} SET body = ? WHERE id = ?",  # noqa: S608
                    (json.dumps(body), id_),
                )
    db.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_orders_that_are_late_or_over_are_noted_and_told_once(mortal: Mortal) -> None:
    for name in ("canary", "stable"):
        await joined(mortal, name)
    for key, value in (
        ("sla.record_only", "false"),
        ("sla.every_seconds", "10"),
        ("sla.fyi_agents", "stable"),
    ):
        body = json.dumps({"value": value}).encode()
        await mortal.client.ask("PUT", f"/v1/settings/{key}", body)
    ids = {}
    for name, expires_s in (("late", 86400), ("over", 600)):
        asked = {"node": "canary", "kind": "collect_logs", "expires_s": expires_s}
        ids[name] = (await mortal.post("/v1/orders", asked))["id"]
    await mortal.kill()
    database = mortal.settings.paths.database
    await asyncio.to_thread(pass_time, database)
    await mortal.start()

    def breached(found: Any) -> bool:
        return bool(found["order"]["breaches"])

    async with reaped(mortal) as reaper:
        late = await until(lambda: mortal.get(f"/v1/orders/{ids['late']}"), breached)
    assert sum(reaper.kills.values()) >= 4
    assert [(each["kind"], each["told"] is not None) for each in late["order"]["breaches"]] == [
        ("not_claimed", True)
    ]
    over = await mortal.get(f"/v1/orders/{ids['over']}")
    assert [each["event"] for each in over["events"]] == ["create", "expire"]
    with sqlite3.connect(database) as db:
        told_of = db.execute("SELECT node, kind FROM order_notices ORDER BY node").fetchall()
    db.close()
    assert told_of == [("canary", "not_claimed"), ("stable", "not_claimed")]


@pytest.mark.timeout(1200)
async def test_it_starts_after_it_was_killed_at_each_write_of_a_start(mortal: Mortal) -> None:
    """Its keys, its first admin, its roster: all made once."""
    await joined(mortal, "canary")
    before = await mortal.get("/v1/operator-tokens")
    killed = 0
    for number in range(1, STARTING):
        for place in (f"written.committing#{number}", f"written.committed#{number}"):
            await mortal.kill()
            mortal.mother.arm(place)
            with contextlib.suppress(RuntimeError):
                await mortal.start()
                continue
            killed += 1
            mortal.mother.arm()
            await mortal.start()
    mortal.mother.arm()
    assert killed >= LEAST_STARTING
    after = await mortal.get("/v1/operator-tokens")
    assert [each["id"] for each in after["tokens"]] == [each["id"] for each in before["tokens"]]
    assert [each["name"] for each in (await mortal.get("/v1/nodes"))["nodes"]] == ["canary"]
