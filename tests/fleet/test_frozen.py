"""A node that is frozen by hand, in a fleet of real processes that moves on."""

from __future__ import annotations

import pytest

from shared.errors import CommandError
from tests.fleet.conftest import NEW, OLD, Ready
from tests.support.fleetkit import until_status


async def test_a_node_that_is_frozen_by_hand_stays_until_it_is_lifted(ready: Ready) -> None:
    """While the agent is down, over its restart, and with the rest of the fleet moving up to it; its way back stays
    open."""
    fleet = ready.fleet
    stable = fleet.node("stable")
    new = await fleet.freeze(NEW)
    await fleet.supervisor.stop("stable")
    frozen = await fleet.agent(stable, "freeze", "--reason", "maintenance")
    assert frozen["now"][0]["why"] == "maintenance"
    fleet.start_agent(stable)
    rollout = await fleet.set_target(new, strategy="canary", soak_s=0)
    report = await until_status(fleet, stable, lambda it: "by hand" in it["waiting"], "waiting")
    assert "(maintenance): lift with rollcall-agent unfreeze" in report["waiting"]
    shown = await fleet.rollcall("rollout", "status")
    reasons = {node["name"]: node["reason"] for node in shown["nodes"]}
    assert "by hand (maintenance)" in reasons["stable"]
    assert report["version_running"] == OLD
    with pytest.raises(CommandError, match="froze this node already"):
        await fleet.agent(stable, "freeze", "--reason", "another")
    await fleet.agent(stable, "unfreeze", "--reason", "over")
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    await fleet.agent(stable, "freeze", "--reason", "again")
    back = await fleet.agent(stable, "rollback", "--reason", "a freeze is no obstacle")
    assert back["upgrade"]["outcome"] == "rolled_back", back["upgrade"]
    assert back["version_running"] == OLD
    past = (await fleet.agent(stable, "freezes"))["past"]
    assert [(each["freeze"]["why"], each["why"]) for each in past] == [("maintenance", "over")]
