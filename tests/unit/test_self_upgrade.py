"""The agent's own upgrade: what is decided, what is done, and who tells of its end."""

import asyncio
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.builder import BadAgentError
from agent.schema import SCHEMA_VERSION
from agent.self_upgrade import (
    Build,
    Departure,
    Go,
    Hold,
    Refuse,
    Stay,
    decide,
)
from agent.store import Store
from agent.upgrade.phases import Phase
from shared.canonical import sha256_hex
from shared.errors import (
    CommandError,
    ConflictError,
    RollcallError,
    UnavailableError,
)
from shared.messages import RedKind
from tests.support.agentworld import (
    BUILD,
    FACTS,
    RAW,
    RELEASE,
    RELEASE_OF_B,
    World,
    make_world,
    moved,
    off,
)
from tests.unit.test_journal import TARGET
from tests.unit.test_runner import World as StepWorld
from tests.unit.test_runner import runner


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "home")


def built(sha256: str = "b" * 64) -> Any:
    from agent.environments import Built

    return Built(version="0.1.1", sha256=sha256, at=1)


def failure(sha256: str | None = "b" * 64) -> Any:
    from agent.environments import Failed

    return Failed(version="0.1.1", sha256=sha256, why="it was started 3 times")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, Build(BUILD)),
        ({"built": built()}, Go("0.1.1")),
        ({"built": built("c" * 64)}, Build(BUILD)),
        (
            {"built": built(), "failed": failure()},
            Refuse("agent 0.1.1 failed here: it was started 3 times"),
        ),
        ({"failed": failure(None)}, Refuse("agent 0.1.1 failed here: it was started 3 times")),
        ({"failed": failure("c" * 64)}, Build(BUILD)),
        ({"running": "0.1.1"}, Stay()),
    ],
)
def test_what_is_next(changes: dict[str, Any], wanted: object) -> None:
    assert decide(BUILD, replace(FACTS, **changes)) == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"launched": False}, "rollcall-agent adopt"),
        ({"frozen": "a red of b"}, "frozen by a red of b"),
        ({"settled": False}, "has not reported healthy yet"),
        ({"active": "0.1.1"}, "agent 0.1.0 runs while 0.1.1 is active"),
    ],
)
def test_what_has_to_be_waited_for(changes: dict[str, Any], reason: str) -> None:
    step = decide(BUILD, replace(FACTS, built=built(), **changes))
    assert isinstance(step, Hold)
    assert reason in step.reason


def test_without_an_agent_in_the_release_nothing_is_asked() -> None:
    assert decide(None, replace(FACTS, launched=False, settled=False)) == Stay()


async def test_it_builds_then_looks_again_then_departs(world: World) -> None:
    """Whatever was heard during the build counts before `active` moves."""
    world.files = {sha256_hex(RAW): RAW}
    upgrade = world.upgrade()
    assert not await upgrade.step(TARGET, RELEASE, world.drop)
    assert await off(world.links) == ("0.1.0", None)
    world.red = "a red of b"
    with pytest.raises(ConflictError, match="frozen by a red of b"):
        await upgrade.step(TARGET, RELEASE, world.drop)
    world.red = None
    with pytest.raises(Departure):
        await upgrade.step(TARGET, RELEASE, world.drop)
    assert await off(world.links) == ("0.1.1", "0.1.0")
    move = await off(world.environments.move)
    assert move is not None
    assert (move.version, move.before, move.target, move.served) == ("0.1.1", "0.1.0", TARGET, True)
    assert not (world.environments.root / ".parts").exists()
    assert world.did == [
        "fetching agent 0.1.1",
        "building agent 0.1.1",
        "built from rollcall-0.1.1-py3-none-any.whl, ['rollcall-0.1.1-py3-none-any.whl']",
        "",
    ]


async def test_a_coordinator_that_goes_away_is_waited_for(world: World) -> None:
    with pytest.raises(UnavailableError):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert (world.dropped, world.reds, world.blocks) == ([], [], {})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (CommandError("pip failed (1): no index"), "no index"),
    ],
)
async def test_a_build_for_which_there_is_no_room_ends_this_order_only(
    world: World, error: Exception, reason: str
) -> None:
    """Fault 36."""
    world.files, world.build_error = {sha256_hex(RAW): RAW}, error
    assert not await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert [order for order, _ in world.dropped] == [TARGET.order]
    assert reason in world.dropped[0][1]
    assert (world.reds, world.blocks) == ([], {})


async def test_a_wheel_that_makes_no_agent_is_red_and_blocked(world: World) -> None:
    world.files = {sha256_hex(RAW): RAW}
    world.build_error = BadAgentError("agent 0.1.1 does not start: ImportError")
    assert not await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert [kind for kind, _ in world.reds] == [RedKind.AGENT_FAILED]
    assert "does not start" in world.blocks[TARGET.release]
    assert "agent 0.1.0 goes on" in world.dropped[0][1]


async def test_a_blocked_release_goes_on_to_be_refused_by_its_claim(world: World) -> None:
    world.blocks[RELEASE.id] = "it failed"
    assert await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.did == []


async def test_one_without_a_launcher_says_so_and_does_nothing(world: World) -> None:
    world.launched = False
    with pytest.raises(ConflictError, match="not started by its launcher"):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.did == []


async def test_the_agent_that_runs_again_tells_of_the_failure_once(world: World) -> None:
    await off(moved, world)
    record = {
        "version": "0.1.1",
        "sha256": "b" * 64,
        "why": "3 starts",
        "at": 1,
        "exit": "no gateway",
    }
    (world.environments.root / "0.1.1.failed.json").write_text(json.dumps(record))
    await off(world.environments.activate, "0.1.0")
    for _ in range(2):
        await world.upgrade().recover(world.drop)
    reason = "agent 0.1.1 failed here: 3 starts: no gateway; agent 0.1.0 goes on"
    assert world.reds == [(RedKind.AGENT_FAILED, reason)]
    assert world.dropped == [(TARGET.order, reason)]
    assert world.blocks == {TARGET.release: reason}
    assert not await world.upgrade().step(TARGET, RELEASE_OF_B, world.drop), "and never again"
    assert len(world.reds) == 2


async def test_a_kill_before_the_link_moved_means_that_nothing_was_tried(world: World) -> None:
    await off(moved, world)
    await off(world.environments.activate, "0.1.0")
    await world.upgrade().recover(world.drop)
    assert await off(world.environments.move) is None
    assert (world.reds, world.dropped) == ([], [])


async def test_the_new_agent_leaves_the_move_to_its_healthy_report(world: World) -> None:
    await off(moved, world)
    world.running = "0.1.1"
    await world.upgrade().recover(world.drop)
    assert await off(world.environments.move) is not None


async def test_an_adoption_under_way_is_waited_for(world: World) -> None:
    world.files, world.build_error = {sha256_hex(RAW): RAW}, ConflictError("in use")
    with pytest.raises(ConflictError):
        await world.upgrade().step(TARGET, RELEASE, world.drop)
    assert world.dropped == []


async def test_an_order_that_was_never_begun_ends_in_the_journal_once(tmp_path: Path) -> None:
    """And only as far as the table allows: nothing while another one runs."""
    steps = StepWorld()
    made = await off(runner, tmp_path / "upgrade.log", steps)
    for _ in range(2):
        await made.drop(TARGET, "x", "agent 0.1.1 failed here")
    assert made.record is not None
    assert (made.record.phase, made.record.reason) == (Phase.DROPPED, "agent 0.1.1 failed here")
    again = await off(runner, tmp_path / "upgrade.log", steps)
    assert again.record == made.record
    assert steps.did == []
    other = TARGET.model_copy(update={"order": "00000001:canary"})
    steps.hang = Phase.STAGED
    task = asyncio.create_task(again.begin(other, "y"))
    await steps.hanging.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await again.drop(TARGET.model_copy(update={"order": "00000002:canary"}), "z", "late")
    assert again.record is not None
    assert again.record.target == other


async def test_an_older_agent_opens_a_database_that_a_newer_one_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await (await Store.open(path)).close()

    def become(schema: int, readable_from: int | None) -> None:
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {schema}")
            db.execute("DELETE FROM meta WHERE key = 'readable_from'")
            if readable_from is not None:
                db.execute("INSERT INTO meta VALUES ('readable_from', ?)", (readable_from,))
        db.close()

    await off(become, SCHEMA_VERSION + 1, SCHEMA_VERSION)
    store = await Store.open(path)
    await store.block("a" * 64, "x", 1.0)
    await store.close()
    for readable_from in (None, SCHEMA_VERSION + 1):
        await off(become, SCHEMA_VERSION + 1, readable_from)
        with pytest.raises(RollcallError, match="written by a newer agent"):
            await Store.open(path)
