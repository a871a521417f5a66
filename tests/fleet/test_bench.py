"""The sides of `scripts/bench outage`, on the stand-in: that they move what they say, twice over; and the small forms
of `scripts/bench sync` and `scripts/bench rollout`."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from agent.openclaw.tree import hash_tree
from scripts.benchmarks import rollout, sync
from scripts.benchmarks.moving import WORK, our_fleet
from scripts.benchmarks.outages import Answer
from scripts.benchmarks.plain import watching
from scripts.benchmarks.playing import playing
from scripts.benchmarks.prober import ask
from scripts.benchmarks.serial import ansible, play_nothing
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


@pytest.mark.timeout(300)
async def test_heartbeats_and_waiting_agents_are_measured_beside_their_rivals() -> None:
    small = sync.Sizes(nodes=8, turns=2, turn_s=0.5, waiting=(20,), hold_s=1)
    rate, memory = await sync.run_round(small)
    assert (rate.figure, memory.figure) == ("rate_vs_bare", "mib_at_20")
    assert rate.ours > 0 < rate.rival
    assert memory.rival == 400
    assert memory.detail["answers"] >= 20
    assert 20 < memory.ours < 400


@pytest.mark.timeout(600)
async def test_a_rollout_is_measured_without_the_work_itself() -> None:
    async with our_fleet(3, OLD) as fleet:
        moved = await fleet.move(NEW)
    assert moved.work_s.keys() == set(WORK)
    assert min(moved.work_s.values()) > 0
    assert {"claimed", "attested", "good"} <= moved.other_s.keys()
    assert 0 < moved.overhead_s < moved.total_s
    async with playing(5, [NEW, "2026.9.7"]) as stand:
        played = [await stand.move(version) for version in (NEW, "2026.9.7")]
    assert all(each.overhead_s == each.total_s > 0 for each in played)
    figures = {sample.figure for sample in rollout.paired(5, [moved], played[:1])}
    assert figures == {"overhead_n5_vs_ansible"}


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="Ansible is not here")
async def test_the_rival_moves_its_hosts_and_says_what_its_commands_took() -> None:
    async with ansible(2, [OLD, NEW]) as hosts:
        moved = await hosts.move(NEW)
    assert {"staged", "rehearsed", "booted", "stopped", "started", "green"} <= moved.work_s.keys()
    assert 0 < moved.overhead_s < moved.total_s
    nothing = await play_nothing(10, 1)
    assert nothing.overhead_s > nothing.other_s["sample"], "ten hosts take longer than one"
