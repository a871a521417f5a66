"""Gates of a real coordinator that need more time, or other work, than a fleet on loopback has: each holds a rollout,
says whom it waits for, and opens or stays shut as it should. Nodes only report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.rollout.gates import PATIENCE_S
from shared.clock import SystemClock
from shared.errors import RollcallError
from shared.nodes import Cohort, CohortState
from shared.rollout import Rollout
from tests.support.coordinatorkit import Running, joined, run_coordinator, sync
from tests.unit.test_orders import create, say
from tests.unit.test_rollout_api import begin, report, two, until
from tests.unit.test_traffic_api import report as serving
from tests.unit.test_traffic_api import set_steps, until_step, upgraded

STEP_S = 600.0
"""Shorter than a lease."""


class Later(SystemClock):
    """The host's clock, put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
async def running(tmp_path: Path, later: Later) -> AsyncIterator[Running]:
    async with run_coordinator(tmp_path) as made:
        await made.restart(later)
        yield made


async def reaches(running: Running, holds: Callable[[Rollout], bool]) -> Rollout:
    found: Any = None
    try:
        async with asyncio.timeout(10):
            while True:
                (found, *_) = (await running.get("/v1/rollouts"))["rollouts"]
                made = Rollout.from_value(found)
                if holds(made):
                    return made
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still {found}") from None


async def test_who_is_not_heard_of_is_waited_for(running: Running, later: Later) -> None:
    canary, stable, release = await two(running)
    later.ahead = 31.0
    await sync(canary)
    id_ = await begin(running, release)
    held = await reaches(running, lambda it: it.reason == "waits to hear of stable")
    node = held.find("canary")
    assert node is not None
    assert (node.state, node.waits_for, node.reason) == ("waiting", ["stable"], held.reason)
    assert (await sync(canary)).target is None
    since = node.since
    await asyncio.sleep(1.5)
    still = (await reaches(running, lambda it: True)).find("canary")
    assert still is not None
    assert (still.state, still.since) == ("waiting", since)
    await sync(stable)
    await until(running, id_, "canary", "pending")


def is_led(now: float, rollout: Rollout) -> bool:
    """Its lease is a new one, or it stands."""
    return rollout.leased_until is None or rollout.leased_until > now + STEP_S


async def test_a_release_that_expires_on_the_way_pauses(running: Running, later: Later) -> None:
    """The flag that nobody has taken up is taken back."""
    canary, stable, release = await two(running)
    id_ = await begin(running, release)
    await until(running, id_, "canary", "pending")
    while later.ahead < 3600:
        later.ahead += STEP_S
        await sync(canary)
        await sync(stable)
        await reaches(running, partial(is_led, later.now()))
    words = "the release has expired: no node begins it any more"
    paused = await reaches(running, lambda it: it.state == "paused")
    assert paused.reason == words
    assert (await sync(canary)).target is None
    with pytest.raises(RollcallError, match=words):
        await running.post(f"/v1/rollouts/{id_}/resume", {})
    with pytest.raises(RollcallError, match="has expired"):
        await begin(running, release)


async def test_work_that_nobody_takes_refuses_then_pauses(running: Running, later: Later) -> None:
    """Its only worker is silent. Under `warn` a plan says so; under `fail` it is refused, and what runs is paused."""
    canary, stable, release = await two(running)
    work = Cohort(queue="orders", build_id="blue", state=CohortState.ACTIVE, active=1, waiting=2)
    await sync(stable, report("stable", cohort=work))
    id_ = await begin(running, release)
    await until(running, id_, "canary", "pending")
    words = "3 tasks of orders wait for build blue, which no live worker has"
    later.ahead = 31.0
    await sync(canary)
    await set_steps(running, validation="fail")
    held = await reaches(running, lambda it: "cohorts" in it.doubts)
    assert held.reason == f"waits to hear of stable; also: {words}"
    later.ahead += PATIENCE_S
    await sync(canary)
    paused = await reaches(running, lambda it: it.state == "paused")
    assert paused.reason == words
    await running.post(f"/v1/rollouts/{id_}/abort", {})
    await reaches(running, lambda it: it.state == "aborted")
    with pytest.raises(RollcallError, match=words):
        await begin(running, release)
    await set_steps(running, validation="warn")
    planned = await running.post("/v1/plans", {"release": release, "yes_really": True})
    assert words in planned["warnings"]
    await begin(running, release)


async def test_a_restart_in_hand_uses_up_a_slot_also_after_the_coordinator_s_restart(
    running: Running, later: Later
) -> None:
    canary, stable, release = await two(running)
    await sync(stable, report("stable", release="a" * 64))
    order = (await create(running, node="stable"))["id"]
    await say(running, stable, order, "claim", eta_s=60)
    await running.restart(later)
    await sync(canary, report("canary", release="a" * 64))
    await sync(stable, report("stable", release="a" * 64))
    id_ = await begin(running, release)
    words = "1 of at most 1 are out: waits for stable"
    held = await until(running, id_, "canary", "waiting")
    node = held.find("canary")
    assert node is not None
    assert (node.reason, node.waits_for) == (words, ["stable"])
    await say(running, stable, order, "complete")
    await until(running, id_, "canary", "pending")


async def test_no_node_is_restarted_while_another_has_not_all_of_its_traffic_again(
    running: Running,
) -> None:
    """P7: a node at a tenth of its share is not back."""
    a, b = await joined(running, "a"), await joined(running, "b")
    await set_steps(running, steps=[10, 100], step_for=3600)
    await sync(b, serving("b"))
    await until_step(a, upgraded("a", 10), 10)
    order = (await create(running, node="b"))["id"]
    refused = await say(running, b, order, "claim", eta_s=60)
    assert refused.status == 409
    assert refused.body["detail"] == "at most 1 may be out at once, and these are: a"
    await running.post("/v1/traffic/nodes/a", {"percent": 100, "reason": "a test"})
    await until_step(a, upgraded("a", 10), 100)
    assert (await say(running, b, order, "claim", eta_s=60)).status == 200
