"""Each gate stops a rollout that would else go on, says why, and opens or stays shut as it should."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coordinator.rollout.decide import LEASE_S, decide
from coordinator.rollout.facts import Fleet
from coordinator.rollout.gates import GATES, PATIENCE_S, SETTLING_S, How, Situation, failures
from shared.fleetsettings import FleetSettings, Strategy, Window
from shared.messages import Verdict
from shared.report import UpgradeReport
from shared.rollout import (
    NodeState,
    NodeView,
    Rollout,
    RolloutKind,
    RolloutNode,
    RolloutState,
    WaveKind,
)
from shared.roster import Role
from tests.unit.test_rollout import ID, NOW, RED, RELEASE, ended, fleet, make, states, view

OLD = "b" * 64


def settings(**changes: object) -> FleetSettings:
    return FleetSettings.model_validate(changes)


def named(name: str, **changes: object) -> NodeView:
    return view("stable").model_copy(update={"name": name, **changes})


def begins(rollout: Rollout) -> bool:
    return NodeState.PENDING in states(rollout).values()


def test_with_every_gate_open_it_begins() -> None:
    assert begins(decide(make(), fleet(), NOW))


def test_a_red_halts() -> None:
    halted = decide(make(), fleet(reds=[RED]), NOW)
    assert (halted.state, begins(halted)) == (RolloutState.HALTED, False)
    assert halted.ended == NOW


def test_an_undo_goes_on_under_the_reds_that_it_is_for_and_not_under_new_ones() -> None:
    undo = make().model_copy(update={"kind": RolloutKind.UNDO, "created": 500.0})
    assert begins(decide(undo, fleet(reds=[RED.model_copy(update={"issued": 400.0})]), NOW))
    newer = fleet(reds=[RED.model_copy(update={"issued": 600.0})])
    assert decide(undo, newer, NOW).state is RolloutState.HALTED


@pytest.mark.parametrize(("rollbacks", "state"), [(2, "running"), (3, "halted")])
def test_three_rollbacks_anywhere_block_a_release(rollbacks: int, state: str) -> None:
    known = fleet(rollbacks={RELEASE: rollbacks, OLD: 7})
    decided = decide(make(), known, NOW)
    assert decided.state == state
    assert begins(decided) == (state == "running")
    if state == "halted":
        assert "rollcall release unblock" in decided.reason


def test_an_expired_release_pauses() -> None:
    expiring = make().model_copy(update={"expires": NOW})
    paused = decide(expiring, fleet(), NOW)
    assert (paused.state, begins(paused)) == (RolloutState.PAUSED, False)
    assert begins(decide(expiring, fleet(), NOW - 1))


def test_a_frozen_fleet_waits_and_goes_on_by_itself() -> None:
    begun = decide(make(), fleet(), NOW)
    frozen = decide(begun, fleet(settings=settings(frozen="holidays")), NOW)
    assert (frozen.state, begins(frozen)) == (RolloutState.RUNNING, False)
    assert frozen.nodes[0].reason.startswith("the fleet is frozen: holidays")
    assert begins(decide(frozen, fleet(), NOW))


def test_frozen_ratios_hold_what_has_not_begun() -> None:
    """What is upgraded now could take no traffic until they are free again."""
    begun = decide(make(), fleet(), NOW)
    held = decide(begun, fleet(ratios_frozen="op froze all ratios"), NOW)
    assert (held.state, begins(held), held.nodes[0].reason) == (
        RolloutState.RUNNING,
        False,
        "op froze all ratios",
    )
    assert begins(decide(held, fleet(), NOW))


def test_work_that_no_worker_has_holds_then_pauses_where_that_fails() -> None:
    stranded = ("3 tasks of orders wait for build b1, which no live worker has",)
    warned = fleet(settings=settings(validation="warn"), stranded=stranded)
    assert begins(decide(make(), warned, NOW))
    strict = fleet(settings=settings(validation="fail"), stranded=stranded)
    held = decide(make(), strict, NOW)
    assert (held.state, begins(held)) == (RolloutState.RUNNING, False)
    assert held.reason == stranded[0]
    assert decide(held, strict, NOW + PATIENCE_S).state is RolloutState.PAUSED


def test_outside_its_windows_nothing_begins() -> None:
    at = datetime(2026, 11, 21, 3, 0, tzinfo=UTC).timestamp()
    window = Window(cron="0 2 * * *", duration_s=7200, tz="UTC")
    heard = [view(name, heard=at) for name in ("canary", "stable", "witness")]
    known = fleet(*heard, settings=settings(windows=[window.model_dump()]))
    assert begins(decide(make(), known, at))
    later = [view(name, heard=at + 7200) for name in ("canary", "stable", "witness")]
    shut = decide(make(), fleet(*later, settings=known.settings), at + 7200)
    assert not begins(shut)
    assert "the next opens 2026-11-22 02:00 UTC" in shut.reason
    blackout = settings(windows=[window.model_dump()], blackouts=["2026-11-21"])
    assert (
        "2026-11-21 is a blackout day"
        in decide(make(), fleet(*heard, settings=blackout), at).reason
    )


def done_then_unknown() -> tuple[Rollout, Fleet]:
    begun = decide(make(), fleet(), NOW)
    moved = decide(begun, fleet(ended("canary"), view("witness", heard=NOW - 60)), NOW)
    assert states(moved)["canary"] is NodeState.DONE
    return moved, fleet(ended("canary", status=Verdict.UNKNOWN))


def test_an_unknown_node_holds_then_pauses_and_the_pause_is_sticky() -> None:
    moved, doubtful = done_then_unknown()
    held = decide(moved, doubtful, NOW)
    assert (held.state, begins(held)) == (RolloutState.RUNNING, False)
    assert held.reason.startswith("unknown since it moved: canary; also: 2 of 3 nodes are healthy")
    later = NOW + PATIENCE_S
    heard = {
        name: each.model_copy(update={"heard": later}) for name, each in doubtful.nodes.items()
    }
    paused = decide(held, Fleet(heard, []), later)
    assert paused.state is RolloutState.PAUSED
    well = {**heard, "canary": heard["canary"].model_copy(update={"status": Verdict.GREEN})}
    still = decide(paused, Fleet(well, []), later)
    assert (still.state, begins(still)) == (RolloutState.PAUSED, False)


def gone_back(at: float, status: Verdict) -> tuple[Rollout, Fleet]:
    """An undo whose first node has gone back and does not know yet how it is."""
    undoes = "00112233:canary"
    nodes = [
        node.model_copy(update={"undoes": f"00112233:{node.name}", "release": OLD})
        for node in make().nodes
    ]
    undo = make().model_copy(update={"kind": RolloutKind.UNDO, "nodes": nodes})
    upgrade = UpgradeReport(
        order=undoes, release=RELEASE, phase="rolled_back", outcome="rolled_back", began=0
    )
    canary = view("canary", status=status, release=OLD).model_copy(update={"upgrade": upgrade})
    views = [canary, view("stable"), view("witness")]
    heard = {each.name: each.model_copy(update={"heard": at}) for each in views}
    return undo, Fleet(heard, [])


def test_a_node_that_has_just_gone_back_is_given_time_to_know_how_it_is() -> None:
    """On a busy host its first readings are late: an undo is not paused for that, and not for ever either."""
    undo, before = gone_back(NOW, Verdict.GREEN)
    views = {**before.nodes, "canary": view("canary")}
    begun = decide(undo, Fleet(views, []), NOW)
    assert begins(begun)
    held = decide(begun, gone_back(NOW, Verdict.UNKNOWN)[1], NOW)
    assert held.reason == "not known yet how it is since it moved: canary"
    later = NOW + SETTLING_S
    soon = decide(held, gone_back(later - 1, Verdict.UNKNOWN)[1], later - 1)
    assert soon.state is RolloutState.RUNNING
    assert states(decide(soon, gone_back(later, Verdict.GREEN)[1], later))["canary"] is (
        NodeState.DONE
    )
    assert decide(soon, gone_back(later, Verdict.UNKNOWN)[1], later).state is RolloutState.PAUSED


def test_nobody_knows_when_it_ends_while_a_gate_is_shut_and_nothing_moves() -> None:
    frozen = fleet(settings=settings(frozen="a launch"))
    held = decide(make(), frozen, NOW)
    assert held.eta is None
    begun = decide(held, fleet(), NOW)
    assert begun.eta is not None
    assert decide(begun, frozen, NOW).eta is None


def test_a_short_doubt_is_forgotten() -> None:
    moved, doubtful = done_then_unknown()
    held = decide(moved, doubtful, NOW)
    again = decide(held, fleet(ended("canary")), NOW + 1)
    assert begins(again)
    assert again.doubts == {}


def sick(name: str) -> NodeView:
    return view(name, status=Verdict.UNKNOWN)


def test_too_few_healthy_nodes_hold_the_next_wave_and_then_pause() -> None:
    begun = decide(make(), fleet(sick("witness")), NOW)
    assert begins(begun), "the first is not kept waiting"
    held = decide(begun, fleet(ended("canary"), sick("witness")), NOW)
    assert not begins(held)
    assert held.reason == "2 of 3 nodes are healthy, 95 % are wanted: not witness"
    later = NOW + PATIENCE_S
    known = fleet(
        ended("canary", heard=later),
        view("stable", heard=later),
        view("witness", heard=later, status=Verdict.UNKNOWN),
    )
    assert decide(held, known, later).state is RolloutState.PAUSED
    lower = fleet(ended("canary"), sick("witness"), settings=settings(health_floor=60))
    assert begins(decide(begun, lower, NOW))


def test_nodes_without_a_release_have_no_health_to_lose() -> None:
    bare = [
        view(name, release=None, status=Verdict.UNKNOWN) for name in ("canary", "stable", "witness")
    ]
    assert begins(decide(make(), fleet(*bare), NOW))


def test_what_widens_holds_the_next_node_and_the_end() -> None:
    begun = decide(make(), fleet(), NOW)
    known = fleet(ended("canary"), widening={"canary": "at 25 %, 40 s more"})
    held = decide(begun, known, NOW)
    assert states(held)["canary"] is NodeState.DONE
    assert held.reason == "traffic widens: canary: at 25 %, 40 s more"
    assert held.find("stable") is not None
    assert not begins(held)
    everything = [ended(name) for name in ("canary", "stable", "witness")]
    last = decide(held, fleet(*everything, widening={"witness": "at 50 %"}), NOW)
    assert last.state is RolloutState.RUNNING
    assert decide(last, fleet(*everything), NOW).state is RolloutState.SUCCEEDED


def wave_of(size: int, bad: int) -> Situation:
    nodes = [
        RolloutNode(
            name=f"n{at}",
            role=Role.STABLE,
            wave=0,
            order=f"{ID}:n{at}",
            since=0,
            state=NodeState.FAILED if at < bad else NodeState.DONE,
            reason="x" if at < bad else "",
        )
        for at in range(size)
    ]
    return Situation(make().model_copy(update={"nodes": nodes}), nodes, Fleet({}, []), NOW)


@pytest.mark.parametrize(
    ("size", "bad", "how"),
    [
        (1, 0, None),
        (1, 1, How.HALT),
        (3, 1, How.HALT),
        (5, 1, How.PAUSE),
        (10, 2, How.PAUSE),
        (10, 3, How.HALT),
        (20, 1, None),
        (19, 1, How.PAUSE),
        (1000, 50, None),
        (1000, 51, How.PAUSE),
        (1000, 201, How.HALT),
    ],
)
def test_the_failure_rate_of_a_wave(size: int, bad: int, how: How | None) -> None:
    found = failures(wave_of(size, bad))
    assert (None if found is None else found.how) is how


def test_skipped_and_withdrawn_nodes_are_no_failures() -> None:
    at = wave_of(4, 1)
    nodes = [at.nodes[0].model_copy(update={"withdrawn": "aborted"}), *at.nodes[1:]]
    assert failures(Situation(at.rollout, nodes, at.fleet, NOW)) is None
    skipped = [at.nodes[0].model_copy(update={"state": NodeState.SKIPPED}), *at.nodes[1:]]
    assert failures(Situation(at.rollout, skipped, at.fleet, NOW)) is None


def test_a_rollout_whose_few_failures_stop_nothing_is_no_success() -> None:
    at = wave_of(30, 1)
    views = {node.name: named(node.name) for node in at.nodes}
    done = decide(at.rollout, Fleet(views, []), NOW)
    assert (done.state, done.reason) == (
        RolloutState.HALTED,
        "all others have moved; failed: n0",
    )


def test_a_lease_that_ran_out_pauses_and_a_restart_within_it_goes_on() -> None:
    led = decide(make(), fleet(), NOW)
    assert led.leased_until == NOW + LEASE_S
    soon = NOW + LEASE_S - 1
    heard = [view(name, heard=soon) for name in ("canary", "stable", "witness")]
    renewed = decide(led, fleet(*heard), soon)
    assert (renewed.state, renewed.leased_until) == (RolloutState.RUNNING, soon + LEASE_S)
    late = NOW + LEASE_S + 60
    heard = [view(name, heard=late) for name in ("canary", "stable", "witness")]
    paused = decide(led, fleet(*heard), late)
    assert (paused.state, begins(paused)) == (RolloutState.PAUSED, False)
    assert paused.reason == "nobody led it for 16 minutes; look, and resume it"


def test_the_lease_is_not_written_at_every_step() -> None:
    led = decide(make(), fleet(), NOW)
    assert decide(led, fleet(), NOW + 1) == led


def test_a_paused_rollout_that_meets_a_red_ends() -> None:
    paused = decide(make(), fleet(), NOW).model_copy(update={"state": RolloutState.PAUSED})
    assert decide(paused, fleet(reds=[RED]), NOW).state is RolloutState.HALTED


def test_every_gate_is_tested_here_or_beside() -> None:
    """Names of the gates that tests of this package show to stop a rollout."""
    shown = {
        "open_red",
        "blocked_release",
        "failures",
        "expired_release",
        "unreached_node",
        "silent_node",
        "frozen_fleet",
        "frozen_ratios",
        "stranded_work",
        "closed_window",
        "unknown_node",
        "low_health",
        "widening_node",
    }
    assert {gate.__name__ for gate in GATES} == shown


def together(count: int = 4, **options: object) -> tuple[Rollout, dict[str, NodeView]]:
    """One wave of as many nodes, all on the old release."""
    names = [f"n{at}" for at in range(count)]
    views = {name: named(name, site="a" if at < 2 else "b") for at, name in enumerate(names)}
    base = make(Strategy.ROLLING, **options)
    wave = base.waves[0].model_copy(update={"kind": WaveKind.GATEWAYS})
    nodes = [
        RolloutNode(
            name=name,
            role=Role.STABLE,
            site=views[name].site,
            wave=0,
            order=f"{ID}:{name}",
            since=0,
        )
        for name in names
    ]
    return base.model_copy(update={"nodes": nodes, "waves": [wave]}), views


def pending(rollout: Rollout) -> list[str]:
    return [node.name for node in rollout.nodes if node.state is NodeState.PENDING]


@pytest.mark.parametrize(("limit", "count"), [("1", 1), ("2", 2), ("50%", 2), ("10%", 1), ("9", 4)])
def test_never_more_than_max_unavailable_are_out(limit: str, count: int) -> None:
    rollout, views = together(max_unavailable=limit)
    decided = decide(rollout, Fleet(views, []), NOW)
    assert len(pending(decided)) == count
    for node in decided.nodes:
        if node.state is NodeState.WAITING:
            assert node.waits_for == pending(decided)
            assert f"{count} of at most {count} are out" in node.reason


def test_a_node_in_the_hands_of_another_order_is_out() -> None:
    rollout, views = together(max_unavailable="2")
    known = Fleet(views, [], held=frozenset({"n3", "gone"}))
    decided = decide(rollout, known, NOW)
    assert pending(decided) == ["n0"]
    waiting = decided.find("n1")
    assert waiting is not None
    assert waiting.waits_for == ["n0", "n3"]


def test_never_more_than_so_many_of_one_site() -> None:
    rollout, views = together(max_unavailable="100%", max_per_site=1)
    decided = decide(rollout, Fleet(views, []), NOW)
    assert pending(decided) == ["n0", "n2"]
    waiting = decided.find("n1")
    assert waiting is not None
    assert (waiting.waits_for, "1 of a are out" in waiting.reason) == (["n0"], True)


def test_a_sick_node_uses_up_no_slot() -> None:
    rollout, views = together(max_unavailable="1")
    views["n0"] = views["n0"].model_copy(update={"status": Verdict.RED})
    known = Fleet(views, [], settings=settings(health_floor=50))
    assert pending(decide(rollout, known, NOW)) == ["n0", "n1"]


def test_a_node_that_soaks_serves_and_frees_its_slot() -> None:
    rollout, views = together(max_unavailable="1")
    begun = decide(rollout, Fleet(views, []), NOW)
    upgrade = UpgradeReport(order=f"{ID}:n0", release=RELEASE, phase="restarted", began=0)
    views["n0"] = views["n0"].model_copy(update={"upgrade": upgrade})
    assert pending(decide(begun, Fleet(views, []), NOW)) == []
    good = upgrade.model_copy(update={"phase": "good"})
    views["n0"] = views["n0"].model_copy(update={"upgrade": good})
    assert pending(decide(begun, Fleet(views, []), NOW)) == [], "its share is still being put back"
    soaking = upgrade.model_copy(update={"phase": "soaking"})
    views["n0"] = views["n0"].model_copy(update={"upgrade": soaking})
    assert pending(decide(begun, Fleet(views, []), NOW)) == ["n1"]


def test_a_thousand_nodes_are_decided_in_time() -> None:
    """Once a second, on one core that serves a thousand agents besides."""
    rollout, views = together(1000, max_unavailable="10%")
    began = datetime.now(UTC)
    decided = decide(rollout, Fleet(views, []), NOW)
    assert (datetime.now(UTC) - began).total_seconds() < 2
    assert len(pending(decided)) == 100
