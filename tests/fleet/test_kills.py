"""Processes of a fleet that are killed, and what must come of it. The tests share the fleet and run in this order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from agent.upgrade.phases import Phase
from shared.rollout import FleetView
from tests.fleet.conftest import NEW, OLD, Ready
from tests.fleet.test_fleet import PATIENCE_S, all_green, gateway_pid, kill, phase_of, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_any_one_process_killed_the_fleet_is_green_again(shared: Ready) -> None:
    fleet = shared.fleet
    victims = {
        **{name: fleet.supervisor.pid(name) for name in ("coordinator", "canary", "witness")},
        "the stable gateway": gateway_pid(fleet.node("stable")),
    }
    untouched = {name: gateway_pid(fleet.node(name)) for name in ("canary", "witness")}
    for name, pid in victims.items():
        assert pid is not None, name
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.05)
        began = (await fleet.watch()).generation
        await until(
            fleet,
            lambda view, began=began: view.generation > began and all_green(view, OLD),  # type: ignore[misc]
            f"green after {name} was killed",
        )
    async with asyncio.timeout(PATIENCE_S):
        while gateway_pid(fleet.node("stable")) in (0, victims["the stable gateway"]):
            await asyncio.sleep(0.1)
    await until(fleet, lambda view: all_green(view, OLD), "green with the new gateway")
    for name, pid in untouched.items():
        assert gateway_pid(fleet.node(name)) == pid, "an agent's death is not its gateway's"


async def test_two_agents_on_one_home_and_a_damaged_journal(shared: Ready) -> None:
    """Faults 9 and 15."""
    fleet = shared.fleet
    node = fleet.node("stable")
    with pytest.raises(Exception, match="in use by another process"):
        await fleet.rollcall_agent(node, "run")
    await fleet.supervisor.stop("stable")
    journal = node.home / "journal" / "upgrade.log"
    journal.write_bytes(b"\0" * 512)
    fleet.start_agent(node)
    view = await until(
        fleet,
        lambda view: (
            any(red.kind == "journal" and red.open for red in view.reds) and all_green(view, OLD)
        ),
        "one red, and the last known good release serves",
    )
    (red,) = [red for red in view.reds if red.origin == "stable"]
    await fleet.rollcall_agent(node, "clear", red.key, "--reason", "a test")
    await until(fleet, lambda view: not any(n.frozen_by for n in view.nodes), "the freeze is over")


async def test_agents_killed_in_mid_upgrade_go_on(shared: Ready) -> None:
    """P4: each node's agent in another phase, and the coordinator with the last."""
    fleet = shared.fleet
    new = await fleet.freeze(NEW)
    rollout = await fleet.set_target(new, strategy="canary", soak_s=2)
    for name, phase in (("canary", "staged"), ("stable", "restarted"), ("witness", "soaking")):
        await until(fleet, reached(rollout, name, Phase(phase)), f"{name} is {phase}")
        await kill(fleet.supervisor.pid(name) or 0)
    await kill(fleet.supervisor.pid("coordinator") or 0)
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    assert all_green(view, NEW)
    assert len({node.ready_probe_sha256 for node in view.nodes}) == 1


def reached(rollout: str, name: str, phase: Phase) -> Callable[[FleetView], bool]:
    """That phase or a later one, of this rollout and not over yet."""
    order = list(Phase)

    def there(view: FleetView) -> bool:
        now = phase_of(view, name)
        planned = view.rollout is not None and view.rollout.id == rollout
        return planned and now not in ("done", "") and order.index(Phase(now)) >= order.index(phase)

    return there
