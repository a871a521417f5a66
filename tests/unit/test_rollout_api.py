"""Plans and verbs over the API of a real coordinator, with nodes that only report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from agent.coordinator import Coordinator
from agent.layout import Layout
from agent.trust import load_trust
from coordinator.cli import app
from coordinator.rollout.decide import decide
from coordinator.rollout.verbs import abort
from coordinator.store.database import Database
from coordinator.store.queries import Queries
from coordinator.store.rollouts import RolloutStore
from coordinator.store.tables import rollouts
from shared.errors import ConflictError
from shared.http import RefusedError
from shared.messages import Verdict
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, SyncRequest, UpgradeReport
from shared.rollout import NodeState, Rollout, RolloutState
from shared.roster import Role
from tests.support.coordinatorkit import Running, dialling, joined, run_coordinator, start, sync
from tests.unit.test_rollout import ID, NOW, ended, fleet, make
from tests.unit.test_rollout_plan import plan as planned

BLOCK = "a" * 64


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with run_coordinator(tmp_path) as made:
        yield made


def report(name: str, **changes: Any) -> NodeReport:
    base = NodeReport(
        node=name, agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
    )
    return base.model_copy(update=changes)


def upgrading(order: str, phase: str, outcome: str | None = None) -> UpgradeReport:
    return UpgradeReport(
        order=order, release=BLOCK, phase=phase, outcome=outcome, reason="why", began=1
    )


async def waits(layout: Layout, said: NodeReport, holds: str | None) -> SyncAnswer:
    """One long exchange, as an agent makes it."""
    trust = await asyncio.to_thread(load_trust, layout)
    number = trust.roster.number
    async with dialling(layout) as dialler:
        coordinator = Coordinator(dialler, trust.identity.url)
        answer = await coordinator.sync(SyncRequest(report=said, roster=number))
        return await coordinator.sync(
            SyncRequest(
                report=said,
                wait_s=10,
                holds=holds,
                roster=(number[0] + 1, 2**40),
                repository=answer.repository,
            )
        )


async def two(running: Running) -> tuple[Layout, Layout, str]:
    """A canary and a stable node that have reported, and a release."""
    canary = await joined(running, "canary", Role.CANARY)
    stable = await joined(running, "stable")
    await sync(canary)
    await sync(stable)
    return canary, stable, await running.publish()


async def until(running: Running, id_: str, name: str, state: str) -> Rollout:
    async with asyncio.timeout(60):
        while True:
            found = Rollout.from_value(await running.get(f"/v1/rollouts/{id_}"))
            node = found.find(name)
            if node is not None and node.state == state:
                return found
            await asyncio.sleep(0.05)


async def begin(running: Running, release: str) -> str:
    made = await running.post("/v1/plans", {"release": release, "yes_really": True, "soak": "1s"})
    return str((await running.post("/v1/rollouts", {"plan": made["sha256"][:16]}))["id"])


async def test_the_plan_that_was_shown_is_what_begins(running: Running) -> None:
    _, stable, release = await two(running)
    made = await running.post("/v1/plans", {"release": "2026.9.6"})
    assert [wave["nodes"] for wave in made["waves"]] == [["canary"], ["stable"]]
    assert (await running.get("/v1/rollouts"))["rollouts"] == []
    begun = await running.post("/v1/rollouts", {"plan": made["sha256"]})
    assert (begun["plan"], begun["state"], begun["set_by"]) == (made["sha256"], "running", "first")
    kept = await running.get(f"/v1/rollouts/{begun['id']}/plan")
    assert (kept["sha256"], kept["release"]) == (made["sha256"], release)
    await until(running, begun["id"], "canary", "pending")
    with pytest.raises(RefusedError, match="still running") as at:
        await running.post("/v1/rollouts", {"plan": made["sha256"]})
    assert at.value.status == 409
    history = (await running.get(f"/v1/rollouts/{begun['id']}/history"))["history"]
    assert (history[0]["node"], history[0]["state"], history[0]["who"]) == (
        None,
        "running",
        "first",
    )
    assert ("canary", "pending") in {(each["node"], each["state"]) for each in history}
    assert await sync(stable) is not None


async def test_a_plan_that_is_not_the_same_any_more_does_not_begin(running: Running) -> None:
    await two(running)
    made = await running.post("/v1/plans", {"release": "2026.9.6"})
    await sync(await joined(running, "third"))
    with pytest.raises(RefusedError, match="third is new") as at:
        await running.post("/v1/rollouts", {"plan": made["sha256"]})
    assert at.value.status == 409
    with pytest.raises(RefusedError, match="no plan 000000000000") as at:
        await running.post("/v1/rollouts", {"plan": "0" * 64})
    assert at.value.status == 404


async def test_a_plan_with_refusals_is_shown_and_does_not_begin(running: Running) -> None:
    await two(running)
    made = await running.post("/v1/plans", {"release": "2026.9.6", "soak": 60})
    assert [each["gate"] for each in made["refusals"]] == ["soak"]
    with pytest.raises(RefusedError, match="30 minutes are the least") as at:
        await running.post("/v1/rollouts", {"plan": made["sha256"]})
    assert at.value.status == 409
    assert (await running.get("/v1/rollouts"))["rollouts"] == []


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"release": "2026.9.6", "undo": "00000000"},
        {"release": "2026.9.6", "steps": [50, 20]},
        {"release": "2026.9.6", "batch": "0"},
        {"release": "2026.9.6", "max_unavailable": "101%"},
        {"release": "2026.9.6", "soak": "soon"},
        {"release": "2026.9.6", "only": ["../x"]},
        {"undo": "../../x"},
    ],
)
async def test_bad_requests_are_refused(running: Running, asked: dict[str, Any]) -> None:
    await two(running)
    with pytest.raises(RefusedError) as at:
        await running.post("/v1/plans", asked)
    assert at.value.status == 400


async def test_pause_and_resume_reach_the_nodes(running: Running) -> None:
    canary, _, release = await two(running)
    id_ = await begin(running, release)
    await until(running, id_, "canary", "pending")
    assert (await sync(canary)).target is not None
    paused = await running.post(f"/v1/rollouts/{id_}/pause", {"reason": "lunch"})
    assert (paused["state"], paused["reason"]) == ("paused", "by first: lunch")
    assert (await sync(canary)).target is None
    await running.post(f"/v1/rollouts/{id_}/resume", {})
    await until(running, id_, "canary", "pending")
    assert (await sync(canary)).target is not None
    with pytest.raises(RefusedError, match="it cannot be resumed"):
        await running.post(f"/v1/rollouts/{id_}/resume", {})
    with pytest.raises(RefusedError) as at:
        await running.post("/v1/rollouts/00000000/pause", {})
    assert at.value.status == 404


async def test_an_abort_wakes_the_node_and_ends_when_it_has_answered(running: Running) -> None:
    canary, _, release = await two(running)
    id_ = await begin(running, release)
    order = f"{id_}:canary"
    await until(running, id_, "canary", "pending")
    waiting = asyncio.create_task(waits(canary, report("canary", withdrawn=[]), order))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    aborting = await running.post(f"/v1/rollouts/{id_}/abort", {"reason": "wrong one"})
    assert aborting["state"] == "aborting"
    answer = await asyncio.wait_for(waiting, 5)
    assert (answer.target, answer.withdrawn) == (None, [order])
    await sync(canary, report("canary", withdrawn=[order]))
    ended_ = await until(running, id_, "canary", "skipped")
    assert (ended_.state, ended_.reason) == (RolloutState.ABORTED, "by first: wrong one")
    assert (await sync(canary, report("canary", withdrawn=[order]))).withdrawn == []
    await begin(running, release)


async def test_a_node_in_mid_upgrade_is_asked_to_go_back(running: Running) -> None:
    canary, _, release = await two(running)
    id_ = await begin(running, release)
    order = f"{id_}:canary"
    await sync(canary, report("canary", upgrade=upgrading(order, "switched")))
    await until(running, id_, "canary", "moving")
    await running.post(f"/v1/rollouts/{id_}/abort", {})
    answer = await sync(canary, report("canary", upgrade=upgrading(order, "rolling_back")))
    assert answer.withdrawn == [order]
    back = upgrading(order, "rolled_back", "rolled_back")
    await sync(canary, report("canary", upgrade=back))
    assert (await until(running, id_, "canary", "rolled_back")).state is RolloutState.ABORTED
    assert (await running.post(f"/v1/releases/{release}/unblock", {}))["forgotten"] == 0, (
        "a rollback that was asked for says nothing against the release"
    )


async def fails(running: Running, canary: Layout, release: str) -> None:
    """One rollout that the canary rolls back."""
    id_ = await begin(running, release)
    back = upgrading(f"{id_}:canary", "rolled_back", "rolled_back")
    await sync(canary, report("canary", upgrade=back))
    assert (await until(running, id_, "canary", "rolled_back")).state is RolloutState.HALTED


async def test_three_rollbacks_block_a_release_until_it_is_unblocked(running: Running) -> None:
    canary, _, release = await two(running)
    for _ in range(3):
        await fails(running, canary, release)
    with pytest.raises(RefusedError, match="it was rolled back 3 times"):
        await begin(running, release)
    words = ["release", "unblock", "2026.9.6", "--config", str(running.settings.paths.client)]
    said = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--json"])
    assert json.loads(said.stdout)["forgotten"] == 3
    await begin(running, release)


async def test_retry_and_skip(running: Running) -> None:
    canary, _, release = await two(running)
    id_ = await begin(running, release)
    dropped = upgrading(f"{id_}:canary", "dropped", "dropped")
    await sync(canary, report("canary", upgrade=dropped))
    await until(running, id_, "canary", "failed")
    with pytest.raises(RefusedError, match="retry or skip"):
        await running.post(f"/v1/rollouts/{id_}/resume", {})
    again = Rollout.from_value(await running.post(f"/v1/rollouts/{id_}/retry", {}))
    node = again.find("canary")
    assert node is not None
    await until(running, id_, "canary", "pending")
    target = (await sync(canary, report("canary", upgrade=dropped))).target
    assert target is not None
    assert (target.order, target.rollout) == (node.order, id_)
    skipped = Rollout.from_value(
        await running.post(f"/v1/rollouts/{id_}/skip", {"nodes": ["stable"], "reason": "away"})
    )
    other = skipped.find("stable")
    assert other is not None
    assert (other.state, other.reason) == (NodeState.SKIPPED, "skipped by first: away")


async def left_alone(running: Running, seconds: float) -> None:
    """As if the coordinator had been away for so long: its rollout's lease is that much older."""
    await running.stop()
    database = await Database.open(running.settings.paths.database)
    found = await Queries(database).last_rollout()
    assert found is not None
    before, generation = found
    assert before.leased_until is not None
    older = before.model_copy(update={"leased_until": before.leased_until - seconds})
    assert await RolloutStore(database).save(before, older, generation, NOW)
    await database.close()
    running.task = await start(running.settings)


@pytest.mark.parametrize(("away", "state"), [(60.0, "pending"), (2000.0, "waiting")])
async def test_a_short_absence_goes_on_and_a_long_one_pauses(
    running: Running, away: float, state: str
) -> None:
    canary, stable, release = await two(running)
    id_ = await begin(running, release)
    await until(running, id_, "canary", "pending")
    await left_alone(running, away)
    await sync(canary)
    await sync(stable)
    found = await until(running, id_, "canary", state)
    if state == "pending":
        assert found.state is RolloutState.RUNNING
        return
    assert found.state is RolloutState.PAUSED
    assert found.reason.startswith("nobody led it for 3")
    assert (await sync(canary)).target is None
    await running.post(f"/v1/rollouts/{id_}/resume", {})
    await until(running, id_, "canary", "pending")


async def test_a_viewer_only_looks(running: Running) -> None:
    _, _, release = await two(running)
    id_ = await begin(running, release)
    viewer = (await running.operator("viewer"))["token"]
    assert (await running.reply("GET", f"/v1/rollouts/{id_}", token=viewer)).status == 200
    for path in ("/v1/plans", "/v1/rollouts", f"/v1/rollouts/{id_}/abort"):
        assert (await running.reply("POST", path, token=viewer, body=b"{}")).status == 403


async def rollcall(running: Running, *words: str) -> tuple[int, str, str]:
    config = ["--config", str(running.settings.paths.client)]
    done = await asyncio.to_thread(CliRunner().invoke, app, [*words, *config])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


async def test_the_command_line_plans_starts_shows_and_exports(
    running: Running, tmp_path: Path
) -> None:
    _, _, release = await two(running)
    code, out, _ = await rollcall(running, "rollout", "plan", "2026.9.6", "--steps", "10%,100")
    assert code == 0
    assert "wave 1  canary    canary (1 at once" in out
    hash_ = out.split("rollcall rollout start ")[1].split()[0]
    code, out, err = await rollcall(running, "rollout", "start", hash_)
    assert (code, "upgrade to 2026.9.6" in err) == (0, True)
    id_ = err.split("rollout ")[1][:8]
    await until(running, id_, "canary", "pending")
    code, out, err = await rollcall(running, "rollout", "status")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["WAVE", "NODE", "ROLE", "STATE", "WAITS FOR", "SINCE", "REASON"]
    assert rows[2][:5] == ["2", "stable", "stable", "waiting", "canary"]
    assert rows[2][6] == "waits for canary"
    await rollcall(running, "rollout", "abort", "--yes")
    code, out, _ = await rollcall(running, "rollout", "history")
    assert out.splitlines()[1].split("\t")[0] == id_
    file = tmp_path / "export.json"
    await rollcall(running, "rollout", "export", "--out", str(file))
    told = json.loads(await asyncio.to_thread(file.read_bytes))
    assert told["rollout"]["options"]["steps"] == [10, 100]
    assert told["plan"]["release"] == release
    assert {each["state"] for each in told["history"]} >= {"running", "pending", "aborting"}


async def test_a_refused_plan_is_shown_with_what_to_do(running: Running) -> None:
    await two(running)
    code, out, _ = await rollcall(running, "rollout", "plan", "2026.9.6", "--soak", "1m")
    assert code == 1
    assert "REFUSED (soak)" in out
    assert "--yes-really" in out
    id_ = await begin(running, "2026.9.6")
    code, out, _ = await rollcall(running, "rollout", "undo", id_, "--yes")
    assert code == 1
    assert "REFUSED (running)" in out


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[Database, RolloutStore, Queries]]:
    database = await Database.open(tmp_path / "db.sqlite")
    yield database, RolloutStore(database), Queries(database)
    await database.close()


Stores = tuple[Database, RolloutStore, Queries]


async def test_compare_and_set_lets_one_writer_through(store: Stores) -> None:
    _, kept, queries = store
    begun = make()
    await kept.add(begun, planned())
    moved = decide(begun, fleet(), NOW)
    assert await kept.save(begun, moved, 1, NOW)
    assert not await kept.save(begun, abort(begun, "op", "", NOW), 1, NOW)
    assert await queries.last_rollout() == (moved, 2)
    history = await queries.history_of(ID)
    assert [(each["node"], each["state"]) for each in history] == [
        (None, "running"),
        ("canary", "pending"),
    ]


async def test_a_rollback_counts_once_however_often_it_is_written(store: Stores) -> None:
    _, kept, _ = store
    begun = make()
    await kept.add(begun, planned())
    halted = decide(decide(begun, fleet(), NOW), fleet(ended("canary", "rolled_back")), NOW)
    assert await kept.save(begun, halted, 1, NOW)
    assert await kept.save(begun, halted, 2, NOW)
    assert await kept.rollbacks() == {"a" * 64: 1}


async def test_one_rollout_at_a_time_also_when_an_ended_one_goes_on(store: Stores) -> None:
    database, kept, _ = store
    first = make().model_copy(update={"state": RolloutState.HALTED})
    await kept.add(first, planned())
    other = make().model_copy(update={"id": "00000002", "created": 5.0})
    await kept.add(other, planned())
    going = first.model_copy(update={"state": RolloutState.RUNNING})
    with pytest.raises(ConflictError, match="00000002 is still running"):
        await kept.save(first, going, 1, NOW)
    async with database.write() as db:
        await db.execute(
            update(rollouts).where(rollouts.c.id == "00000002").values(state="aborted")
        )
    assert await kept.save(first, going, 1, NOW)


async def test_plans_are_kept_for_an_hour_and_those_that_were_followed_for_good(
    store: Stores,
) -> None:
    _, kept, _ = store
    plan = planned()
    await kept.keep_plan(plan, NOW)
    assert await kept.plan(plan.sha256[:12], NOW + 3599) == plan
    assert await kept.plan(plan.sha256, NOW + 3601) is None
    begun = make()
    await kept.add(begun, plan)
    await kept.keep_plan(planned(strategy="rolling"), NOW + 9000)
    assert await kept.plan_of(begun.id) == plan
