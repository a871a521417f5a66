"""When a new agent may call itself healthy."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.environments import (
    State,
    launched_version,
)
from agent.health import ALONE_S, Health, NotHealthyError, Senses, find_missing, is_serving
from agent.layout import Layout
from shared.messages import Verdict
from shared.readiness import Check, CheckStatus, Comparable, ReadinessDocument
from tests.conftest import ManualClock
from tests.support.agentworld import World, make_world, moved, off


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "home")


def document(status: CheckStatus = CheckStatus.PASS, at: float | None = 1.0) -> ReadinessDocument:
    compared = Comparable(
        release=None,
        core_on_disk=None,
        core_running=None,
        plugins={},
        lock_sha256=None,
        tree_sha256=None,
        doctor=[],
        config_schema=None,
    )
    return ReadinessDocument(
        node="a",
        status=Verdict.GREEN,
        reason="",
        at=1,
        checks=[Check(id="gateway", status=status, at=at)],
        comparable=compared,
        ready_probe_sha256="0" * 64,
        evidence_sha256="0" * 64,
    )


def senses(
    seen: ReadinessDocument | None = None, *, reached: bool = True, refused: str = ""
) -> Senses:
    return Senses(lambda: seen or document(), lambda: reached, lambda: refused)


@pytest.mark.parametrize(
    ("senses", "served", "ran_s", "missing"),
    [
        (senses(), True, 0, ""),
        (senses(document(at=None)), False, 0, "has not been read"),
        (senses(document(CheckStatus.FAIL)), True, 0, "served before"),
        (senses(document(CheckStatus.UNKNOWN)), True, 0, "served before"),
        (senses(document(CheckStatus.WARN)), True, 0, ""),
        (senses(document(CheckStatus.FAIL)), False, 0, ""),
        (senses(reached=False), True, ALONE_S - 1, "neither the coordinator nor a peer"),
        (senses(reached=False), True, ALONE_S, ""),
        (senses(refused="protocol 1"), True, ALONE_S, "refuses it: protocol 1"),
    ],
)
def test_what_healthy_means(senses: Senses, served: bool, ran_s: float, missing: str) -> None:
    found = find_missing(senses, served=served, ran_s=ran_s)
    assert missing in found
    assert bool(missing) == bool(found)
    assert is_serving(document()) is True


async def pass_time(clock: ManualClock, until: Callable[[], bool]) -> None:
    """Only while somebody waits for it: what a busy host takes for work in a thread is no time here."""
    async with asyncio.timeout(30):
        while not until():
            if clock.awaited:
                clock.advance(5)
            await asyncio.sleep(0.01)


async def test_a_new_agent_reports_healthy_and_tidies_up(world: World, clock: ManualClock) -> None:
    await off(moved, world)
    await off(world.have, "0.0.9")
    health = Health("0.1.1", world.environments, senses(), clock, 180)
    before = health.settled
    await health.run()
    assert (before, health.settled) == (False, True)
    assert await off(world.environments.is_healthy, "0.1.1")
    assert await off(world.environments.move) is None
    listed = {
        each.version: (each.state, each.healthy) for each in await off(world.environments.listing)
    }
    assert listed == {"0.1.0": (State.GOOD, True), "0.1.1": (State.ACTIVE, True)}


async def test_one_that_cannot_be_healthy_leaves_its_reason_and_ends(
    world: World, clock: ManualClock
) -> None:
    await off(moved, world)
    health = Health("0.1.1", world.environments, senses(document(CheckStatus.FAIL)), clock, 180)
    task = asyncio.create_task(health.run())
    await pass_time(clock, task.done)
    with pytest.raises(NotHealthyError, match="the gateway served before"):
        task.result()
    left = json.loads((world.environments.folder("0.1.1") / "EXIT").read_text())
    assert "within 180 s" in left["reason"]
    assert not await off(world.environments.is_healthy, "0.1.1")
    assert not health.settled


async def test_one_without_any_network_is_healthy_after_a_minute(
    world: World, clock: ManualClock
) -> None:
    await off(moved, world)
    health = Health("0.1.1", world.environments, senses(reached=False), clock, 180)
    began = clock.monotonic()
    task = asyncio.create_task(health.run())
    await pass_time(clock, task.done)
    task.result()
    assert ALONE_S <= clock.monotonic() - began < 100


async def test_the_alarm_of_the_launcher_is_put_off(world: World, clock: ManualClock) -> None:
    await off(moved, world)
    signal.alarm(1000)
    await Health("0.1.1", world.environments, senses(), clock, 180).run()
    assert signal.alarm(0) == 0


async def test_an_agent_that_no_launcher_started_waits_for_nothing(
    world: World, clock: ManualClock
) -> None:
    health = Health(None, world.environments, senses(reached=False), clock, 180)
    assert health.settled
    await health.run()
    assert not (world.environments.folder("0.1.0") / "EXIT").exists()


def test_who_was_started_by_the_launcher_of_this_home(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    mine, other = str(tmp_path / "versions" / "0.1.0"), str(tmp_path / "elsewhere")
    assert launched_version(layout, {"ROLLCALL_LAUNCHED": "0.1.0"}, mine) == "0.1.0"
    assert launched_version(layout, {"ROLLCALL_LAUNCHED": "0.1.1"}, mine) is None
    assert launched_version(layout, {"ROLLCALL_LAUNCHED": "0.1.0"}, other) is None
    assert launched_version(layout, {}, mine) is None
