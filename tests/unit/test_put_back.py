"""The coordinator's database is put back from a copy: no node goes backwards, stale orders are refused (fault 39)."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

from agent.layout import Layout
from agent.upgrade.decide import Nothing, Start, Wait, admit
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from shared.messages import Verdict
from shared.report import NodeReport, ReadinessSummary, Target
from tests.support.coordinatorkit import Running, joined, sync


def had(target: Target) -> Record:
    """What a node remembers of an order that it has carried out."""
    return Record(
        upgrade="u",
        target=target,
        label="x",
        phase=Phase.DONE,
        status=Status.PASSED,
        began=1.0,
        entered=1.0,
        ended=2.0,
    )


async def target_of(layout: Layout) -> Target:
    """Once the engine has given it one."""
    async with asyncio.timeout(30):
        while (target := (await sync(layout)).target) is None:
            await asyncio.sleep(0.05)
        return target


async def begin(running: Running, release: str) -> str:
    asked = {"release": release, "strategy": "immediate", "soak_s": 3600}
    return str((await running.post("/v1/targets", asked))["id"])


async def state_of(running: Running, id_: str, state: str) -> str:
    """The reason of a rollout, once it is in this state."""
    async with asyncio.timeout(30):
        while (found := await running.get(f"/v1/rollouts/{id_}"))["state"] != state:
            await asyncio.sleep(0.05)
        return str(found["reason"])


async def put_back(running: Running, copy: Path, *, hours: int = 0) -> None:
    """So many hours old."""
    await running.stop()
    await asyncio.to_thread(_put_back, running.settings.paths.database, copy, hours)
    await running.restart()


def _put_back(database: Path, copy: Path, hours: int) -> None:
    for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
        database.with_name(name).unlink(missing_ok=True)
    shutil.copy(copy, database)
    with sqlite3.connect(database) as db:
        for id_, raw in db.execute("SELECT id, body FROM rollouts").fetchall():
            body = json.loads(raw)
            body["leased_until"] -= 3600 * hours
            db.execute("UPDATE rollouts SET body = ? WHERE id = ?", (json.dumps(body), id_))
    db.close()


async def test_what_a_rollout_from_before_asks_for_is_refused(running: Running) -> None:
    layout = await joined(running, "a")
    await sync(layout)
    older, newer = await running.publish("2026.9.6"), await running.publish("2026.9.6+1")
    first = await begin(running, older)
    stale = await target_of(layout)
    await running.stop()
    copy = running.root / "copy.db"
    await asyncio.to_thread(shutil.copy, running.settings.paths.database, copy)
    await running.restart()
    await running.post(f"/v1/rollouts/{first}/abort", {"reason": "home"})
    ready = ReadinessSummary(status=Verdict.GREEN)
    dropped = NodeReport(node="a", agent_version="0", readiness=ready, withdrawn=[stale.order])
    await sync(layout, dropped)
    await state_of(running, first, "aborted")
    await begin(running, newer)
    done = await target_of(layout)
    assert (done.release, done.epoch > stale.epoch > 0) == (newer, True)

    await put_back(running, copy)
    again = await target_of(layout)
    assert again == stale, "the coordinator knows no better"
    step = admit(again, newer, had(done), [], [])
    assert isinstance(step, Wait)
    assert f"rollcall rollout abort {first}" in step.reason
    undo = again.model_copy(update={"undoes": done.order})
    assert isinstance(admit(undo, newer, had(done), [], []), Wait)
    assert isinstance(admit(again, older, None, [], []), Nothing)
    assert isinstance(admit(again, newer, had(again), [], []), Nothing), "an order is taken once"
    uncounted = done.model_copy(update={"epoch": 0})
    assert isinstance(admit(again, newer, had(uncounted), [], []), Start)

    await put_back(running, copy, hours=24)
    assert "nobody led it" in await state_of(running, first, "paused")
    assert (await sync(layout)).target is None
    await running.post(f"/v1/rollouts/{first}/abort", {"reason": "stale"})
    await sync(layout, dropped)
    await state_of(running, first, "aborted")
    await begin(running, newer)
    assert (await target_of(layout)).epoch > done.epoch
