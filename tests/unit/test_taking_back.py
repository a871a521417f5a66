"""The agent's side of abort and undo: orders that are taken back, and upgrades that are undone by order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from agent.coordinator import Coordinator
from agent.releases import Releases
from agent.store import Store
from agent.sync import Sync
from agent.upgrade.decide import GoBack, Nothing, Start, Wait, admit
from agent.upgrade.phases import AFTER_STOP, FORWARD, Phase
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.errors import UnavailableError
from shared.messages import Verdict
from shared.release import parse_release
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, Target
from shared.tufclient import TufClient
from tests.conftest import ManualClock
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest
from tests.unit.test_runner import World, path, phase, reload
from tests.unit.test_sync import FakeCoordinator, NoClears, NoRepository

__all__ = ["path"]

UNDO = TARGET.model_copy(
    update={"order": "00000002:canary", "release": "b" * 64, "undoes": TARGET.order}
)


@pytest.mark.parametrize("where", FORWARD)
async def test_an_order_that_is_taken_back_is_dropped_or_rolled_back(
    path: Path, where: Phase
) -> None:
    world = World(hang=where)
    moved = await reload(path, world)
    upgrade = asyncio.create_task(moved.begin(TARGET, "x"))
    await world.hanging.wait()
    await moved.withdraw("00000000:canary", "another's")
    assert phase(moved) is where
    await moved.withdraw(TARGET.order, "the rollout was aborted")
    await upgrade
    assert phase(moved) is (Phase.ROLLED_BACK if where in AFTER_STOP else Phase.DROPPED)
    assert (Phase.ROLLING_BACK in world.did) == (where in AFTER_STOP)
    again = await reload(path, world)
    assert again.record is not None
    assert (again.record.ordered, again.record.reason) == (True, "the rollout was aborted")


async def test_what_has_ended_or_never_began_is_not_taken_back(path: Path) -> None:
    world = World()
    moved = await reload(path, world)
    await moved.withdraw(TARGET.order, "too early")
    assert moved.record is None
    await moved.begin(TARGET, "x")
    await moved.withdraw(TARGET.order, "too late")
    assert phase(moved) is Phase.DONE


async def test_taken_back_while_its_first_entry_is_written(path: Path) -> None:
    world = World()
    moved = await reload(path, world)
    upgrade = asyncio.create_task(moved.begin(TARGET, "x"))
    await asyncio.sleep(0)
    assert moved.record is None
    await moved.withdraw(TARGET.order, "at the very moment")
    await upgrade
    assert phase(moved) is Phase.DROPPED
    assert Phase.FROZEN not in world.did


async def test_a_rollback_by_hand_is_no_order(path: Path) -> None:
    moved = await reload(path, World())
    await moved.begin(TARGET, "x")
    assert not (await moved.roll_back("an operator of this node")).ordered
    failed = await reload(path.with_name("second"), World(fail={Phase.PROVEN}))
    await failed.begin(TARGET, "x")
    assert failed.record is not None
    assert not failed.record.ordered


def test_an_order_that_was_taken_back_does_not_begin() -> None:
    assert admit(TARGET, None, None, [], [], [TARGET.order]) == Nothing()
    assert admit(TARGET, None, None, [], [], ["00000000:canary"]) == Start(TARGET)


async def test_only_the_last_upgrade_is_undone_and_once(path: Path) -> None:
    moved = await reload(path, World())
    never = admit(UNDO, None, None, [], [])
    assert isinstance(never, Wait)
    assert "which is none" in never.reason
    await moved.begin(TARGET, "x")
    assert admit(UNDO, None, moved.record, [], []) == GoBack(UNDO)
    assert admit(UNDO, None, moved.record, ["frozen by hand"], []) == Wait("frozen by hand")
    assert admit(UNDO, None, moved.record, [], ["a red of its own"]) == GoBack(UNDO)
    other = UNDO.model_copy(update={"undoes": "00000007:canary"})
    assert isinstance(admit(other, None, moved.record, [], []), Wait)
    await moved.roll_back("undone", ordered=True)
    assert admit(UNDO, None, moved.record, [], []) == Nothing()


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    made = make_fleet(tmp_path)
    made.layout("a")
    return made


async def test_a_lost_coordinator_takes_nothing_back(fleet: TestFleet) -> None:
    store = await Store.open(fleet.layout("a").database)
    fake = FakeCoordinator()
    heard: list[list[str]] = []
    targets: list[Target | None] = []

    async def report() -> NodeReport:
        return NodeReport(
            node="a", agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
        )

    sync = Sync(
        cast(Coordinator, fake),
        fleet.trust("a"),
        store,
        SystemClock(),
        report,
        targets.append,
        NoRepository(),
        clears=NoClears(),
        on_withdrawn=heard.append,
    )
    fake.answer = SyncAnswer(generation=5, withdrawn=[TARGET.order])
    running = asyncio.create_task(sync.run())
    async with asyncio.timeout(60):
        while not heard:
            await asyncio.sleep(0.02)
        fake.answer = None
        said = len(heard)
        while None not in targets[said:]:
            sync.changed()
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    assert set(map(tuple, heard)) == {(TARGET.order,)}


class Restarting:
    """A coordinator that does not answer for the first asks."""

    def __init__(self, away: int) -> None:
        self.away = away

    async def get(self, path: str, **_: object) -> bytes:
        if self.away:
            self.away -= 1
            raise UnavailableError("no answer")
        return b"{}"


async def fetches(away: int) -> bytes:
    clock = ManualClock()
    client = cast(TufClient, None)
    coordinator = cast(Coordinator, Restarting(away))

    async def ignored(_: object) -> None: ...

    releases = Releases(client, coordinator, list, clock, ignored)
    wanted = parse_release(manifest(lock_sha256=sha256_hex(b"{}")).canonical())
    fetching = asyncio.create_task(releases.lock(wanted))
    while not fetching.done():
        await asyncio.sleep(0.001)
        clock.advance(15)
    releases.close()
    return await fetching


async def test_a_node_that_stages_waits_for_a_coordinator_that_restarts() -> None:
    assert await fetches(5) == b"{}"
    with pytest.raises(UnavailableError):
        await fetches(1000)
