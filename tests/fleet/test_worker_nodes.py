"""Two workers of two builds and a node that is none: a drain with work in hand, a crash, an upgrade, and what the
coordinator says of it all."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import pytest

from coordinator.cli.client import Client
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.workspace import Workspace
from shared.errors import CommandError
from tests.fleet.conftest import NEW, OLD

PATIENCE_S = 150.0
BLUE = "blue-2026-04-21"

Said = dict[str, Any]
log = logging.getLogger(__name__)


@pytest.fixture
async def fleet() -> AsyncIterator[MiniFleet]:
    made = MiniFleet(Workspace(), STANDIN, standin=True, mdns=False)
    made.node("canary").extra = f'\n[worker]\nqueue = "orders"\nbuild_id = "{BLUE}"\n'
    made.node("stable").extra = '\n[worker]\nqueue = "orders"\n'
    try:
        await made.open()
        yield made
    finally:
        await made.close()


def give_work(node: Node, *statuses: str) -> None:
    """As `tasks.list` has it; times in milliseconds."""
    now = time.time() * 1000
    tasks = [
        {
            "taskId": f"t{number}",
            "status": status,
            "createdAt": now - 1000,
            "updatedAt": now,
            **({} if status == "queued" else {"startedAt": now - 500}),
        }
        for number, status in enumerate(statuses)
    ]
    (node.gateway_home / ".openclaw" / "tasks.json").write_text(json.dumps(tasks))


async def ask(fleet: MiniFleet, path: str) -> Said:
    """What is asked again and again: a whole command each time would be most of the load here."""
    return dict(json.loads(await Client(fleet.config).ask("GET", path)))


async def cohort(fleet: MiniFleet, build: str) -> Said:
    cohorts = (await ask(fleet, "/v1/cohorts"))["cohorts"]
    return next((each for each in cohorts if each["build_id"] == build), {})


async def until(look: Callable[[], Awaitable[Said]], holds: Callable[[Said], bool]) -> Said:
    found: Said = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(found := await look()):
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise AssertionError(f"still {found}") from None
    return found


async def takes_traffic(node: Node) -> bool:
    url = f"http://127.0.0.1:{node.api_port}/readyz"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status == 200


async def until_traffic(node: Node, taken: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await takes_traffic(node) is not taken:
            await asyncio.sleep(0.2)


async def test_workers_are_drained_build_by_build(fleet: MiniFleet) -> None:
    old = await fleet.install(OLD)
    canary, stable = fleet.node("canary"), fleet.node("stable")
    give_work(canary, "running", "queued")
    for build in (BLUE, old[:12]):
        await until(partial(cohort, fleet, build), lambda it: it.get("active_workers") == 1)
    log.info("two builds take work")
    await drain_with_work_in_hand(fleet, canary, old[:12])
    log.info("one was drained, and takes work again")
    await crash_once(fleet, stable)
    log.info("a crash was counted")
    await upgrade_ends_the_drain(fleet, stable, old)


async def drain_with_work_in_hand(fleet: MiniFleet, canary: Node, other: str) -> None:
    """It takes no new work, also after its agent and the coordinator were killed, and is drained only once it has
    none left."""
    await until_traffic(canary, True)
    await fleet.rollcall("config", "set", "validation", "fail")
    await fleet.rollcall("cohort", "drain", "orders", "--build-id", BLUE)
    await until_traffic(canary, False)
    busy = await until(partial(cohort, fleet, BLUE), lambda it: it["in_flight"] == 1)
    assert (busy["status"], busy["waiting"], busy["draining_workers"]) == ("draining", 1, 1)
    with pytest.raises(CommandError, match="no live worker of another build"):
        await fleet.rollcall("cohort", "drain", "orders", "--build-id", other)
    for process in ("canary", "coordinator"):
        os.kill(fleet.supervisor.pid(process) or 0, signal.SIGKILL)
    give_work(canary)
    await fleet.watch()
    done = await until(partial(cohort, fleet, BLUE), lambda it: it["status"] == "drained")
    assert (done["active_workers"], done["draining_workers"], done["blocked"]) == (0, 0, 0)
    assert not await takes_traffic(canary)
    await fleet.rollcall("cohort", "resume", "orders", "--build-id", BLUE)
    await until_traffic(canary, True)


async def crash_once(fleet: MiniFleet, node: Node) -> None:
    """Nobody asked for that restart: it shows in the node's health."""

    async def health() -> Said:
        return dict((await ask(fleet, f"/v1/nodes/{node.name}"))["node"]["health"])

    await until(health, lambda it: it["window_s"] > 0)
    pid = json.loads((node.home / "service" / "gateway.json").read_text())["pid"]
    os.kill(int(pid), signal.SIGKILL)
    assert (await until(health, lambda it: it["crashes"] == 1))["uptime"] is not None


async def upgrade_ends_the_drain(fleet: MiniFleet, node: Node, old: str) -> None:
    """The build that was drained is gone with the release that it was; the history knows of both."""
    await until_traffic(node, True)
    await fleet.rollcall("cohort", "drain", "orders", "--build-id", old[:12])
    await until_traffic(node, False)
    await fleet.rollcall("node", "set", node.name, "--class", "worker", "--label", "team=blue")
    new = await fleet.freeze(NEW)
    view = await fleet.until_ended(await fleet.set_target(new, strategy="immediate", soak_s=0))
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    await until(partial(cohort, fleet, new[:12]), lambda it: it.get("active_workers") == 1)
    gone = await cohort(fleet, old[:12])
    assert (gone["status"], gone["nodes"], gone["drain_intent"]) == ("drained", [], True)
    await until_traffic(node, True)
    (last, first) = (await fleet.rollcall("node", "history", node.name))["upgrades"]
    assert (first["from_core"], first["to_core"], first["status"]) == (None, OLD, "success")
    assert (last["from_core"], last["to_core"], last["status"]) == (OLD, NEW, "success")
    assert (last["by"], last["strategy"], last["outage_s"] > 0) == ("first", "immediate", True)
    listed = await fleet.rollcall("node", "list", "--class", "worker", "--label", "team=blue")
    (worker,) = listed["nodes"]
    assert worker["name"] == node.name

    async def status() -> Said:
        return dict((await ask(fleet, f"/v1/nodes/{node.name}"))["node"])

    await until(status, lambda it: it["node_status"] == "online")
    numbers = await fleet.rollcall("operator-metrics")
    assert (numbers["workers"]["active"], numbers["nodes"]["by_openclaw"][NEW]) == (2, 3)
