"""The sides of `scripts/bench outage`, on the stand-in: that they move what they say, twice over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.openclaw.tree import hash_tree
from scripts.benchmarks.outages import Answer
from scripts.benchmarks.plain import watching
from scripts.benchmarks.prober import ask
from scripts.benchmarks.sides import Floor, Ours, Stand
from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace, processes_in
from shared.errors import RollcallError
from shared.roster import Role
from tests.fleet.conftest import NEW, OLD

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
async def test_an_agent_and_the_floor_move_the_same_gateway_and_are_watched() -> None:
    pace = replace(STANDIN, red_after_s=600)
    roles = (Role.CANARY,)
    fleet = MiniFleet(Workspace(), pace, standin=True, mdns=False, roles=roles)
    stand = Stand(fleet, fleet.root / "template")
    try:
        await fleet.open()
        before = await fleet.freeze(OLD)
        after = [await fleet.freeze(NEW, name=f"{NEW}+{number}") for number in (1, 2)]
        assert await stand.make_template(before, fix=True) > 1 << 20
        template = hash_tree(stand.template)
        for release in after:
            ours = Ours(stand)
            await ours.begin()
            up, told = await ours.upgrade(release)
            assert 0 < up.seconds < 60
            back, told = await ours.roll_back()
            assert list(told["spent_s"]) == ["rolling_back"]
            assert 0 < back.seconds < 60
            await ours.end()
            assert hash_tree(stand.state) == template, "each round begins with the same state"
        floor = Floor(stand, migrates=True)
        up, told = await floor.upgrade(before, after[0])
        assert told["spent_s"]["doctor_fix"] + told["spent_s"]["start"] <= up.seconds
        back, told = await floor.roll_back(before)
        assert told["spent_s"]["restore"] < back.seconds
        async with watching(fleet.workspace, stand.port, "idle") as watch:
            assert ask(stand.port) is Answer.GOOD
        with pytest.raises(RollcallError, match="never stopped"):
            watch.result()
        await floor.end()
        assert ask(stand.port) is Answer.REFUSED
        homes = [process.environ().get("HOME") for process in processes_in(fleet.root)]
        assert homes
        assert str(stand.home) not in homes
    finally:
        await fleet.close()
    assert not fleet.root.exists()
