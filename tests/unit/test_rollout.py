"""The rollout as a function: no network, no clock, no database."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.rollout.decide import SILENT_AFTER_S, Fleet, decide
from coordinator.rollout.waves import plan_waves
from shared.fleetsettings import Strategy
from shared.messages import Verdict
from shared.report import Absence, UpgradeReport
from shared.rollout import (
    NodeState,
    NodeView,
    RedView,
    Rollout,
    RolloutNode,
    RolloutOptions,
    RolloutState,
    RolloutWave,
)
from shared.roster import Role

RELEASE = "a" * 64
ID = "a1b2c3d4"
NODES = [("canary", Role.CANARY), ("stable", Role.STABLE), ("witness", Role.WITNESS)]
NOW = 1000.0


def make(strategy: Strategy = Strategy.CANARY, **options: object) -> Rollout:
    chosen = RolloutOptions(strategy=strategy).model_copy(update=options)
    waves = plan_waves([view(name) for name, _ in NODES], chosen)
    if strategy is Strategy.IMMEDIATE:
        chosen = chosen.model_copy(update={"max_unavailable": "100%"})
    nodes = [
        RolloutNode(name=name, role=dict(NODES)[name], wave=number, order=f"{ID}:{name}", since=0)
        for number, wave in enumerate(waves)
        for name in wave.nodes
    ]
    return Rollout(
        id=ID,
        release=RELEASE,
        label="x",
        strategy=strategy,
        soak_s=5,
        options=chosen,
        waves=[RolloutWave(kind=wave.kind, soak_s=5, estimated_s=100) for wave in waves],
        set_by="op",
        created=0,
        nodes=nodes,
    )


def view(name: str, **changes: object) -> NodeView:
    """A node on the old release, just heard of."""
    base = NodeView(
        name=name,
        role=dict(NODES)[name],
        joined=0,
        heard=NOW,
        status=Verdict.GREEN,
        release="b" * 64,
    )
    return base.model_copy(update=changes)


def ended(name: str, outcome: str = "done", **changes: object) -> NodeView:
    upgrade = UpgradeReport(
        order=f"{ID}:{name}", release=RELEASE, phase=outcome, outcome=outcome, reason="why", began=0
    )
    others = [other for other, _ in NODES if other != name]
    return view(name, **{"upgrade": upgrade, "release": RELEASE, "attested_by": others, **changes})


def fleet(*views: NodeView, reds: list[RedView] | None = None, **more: Any) -> Fleet:
    known = {name: view(name) for name, _ in NODES}
    known.update({each.name: each for each in views})
    return Fleet(known, reds or [], **more)


def states(rollout: Rollout) -> dict[str, NodeState]:
    return {node.name: node.state for node in rollout.nodes}


RED = RedView(
    key="canary:1:1",
    origin="canary",
    kind="readiness",
    reason="x",
    issued=0,
    open=True,
    acked_by=[],
)


def test_the_canary_goes_first_and_every_other_node_says_whom_it_waits_for() -> None:
    first = decide(make(), fleet(), NOW)
    assert states(first) == {
        "canary": NodeState.PENDING,
        "stable": NodeState.WAITING,
        "witness": NodeState.WAITING,
    }
    assert all(node.reason for node in first.nodes)
    assert first.nodes[1].reason == "waits for canary"


def test_the_next_wave_waits_for_the_node_and_for_every_signature() -> None:
    begun = decide(make(), fleet(), NOW)
    wanting = decide(begun, fleet(ended("canary", attested_by=["stable"])), NOW)
    assert states(wanting)["canary"] is NodeState.MOVING
    assert wanting.nodes[0].reason == "attestations of witness"
    unready = decide(begun, fleet(ended("canary", status=Verdict.UNKNOWN)), NOW)
    assert states(unready)["stable"] is NodeState.WAITING
    whole = decide(begun, fleet(ended("canary")), NOW)
    assert states(whole)["canary"] is NodeState.DONE
    assert states(whole)["stable"] is NodeState.PENDING


def test_it_ends_when_all_are_done() -> None:
    all_done = fleet(*(ended(name) for name, _ in NODES))
    rollout = decide(decide(make(), fleet(), NOW), all_done, NOW + 1)
    assert rollout.state is RolloutState.SUCCEEDED
    assert rollout.ended == NOW + 1


def test_an_open_red_halts_and_takes_back_the_flags_that_nobody_took() -> None:
    begun = decide(make(), fleet(), NOW)
    halted = decide(begun, fleet(reds=[RED]), NOW)
    assert halted.state is RolloutState.HALTED
    assert halted.reason == (
        "red of canary: x; ends when canary clears it, or operators do:"
        f" rollcall red clear {RED.key}"
    )
    assert set(states(halted).values()) == {NodeState.WAITING}
    cleared = RED.model_copy(update={"open": False})
    assert decide(halted, fleet(reds=[cleared]), NOW).state is RolloutState.HALTED, (
        "a halt is sticky"
    )


@pytest.mark.parametrize("outcome", ["rolled_back", "dropped", "stuck"])
def test_a_failed_node_halts(outcome: str) -> None:
    begun = decide(make(), fleet(), NOW)
    halted = decide(begun, fleet(ended("canary", outcome)), NOW)
    assert halted.state is RolloutState.HALTED
    assert "canary" in halted.reason
    assert states(halted)["stable"] is NodeState.WAITING


def test_a_node_on_its_way_back_is_followed_after_the_halt() -> None:
    begun = decide(make(), fleet(), NOW)
    upgrade = UpgradeReport(order=f"{ID}:canary", release=RELEASE, phase="rolling_back", began=0)
    halted = decide(begun, fleet(view("canary", upgrade=upgrade), reds=[RED]), NOW)
    assert states(halted)["canary"] is NodeState.MOVING
    after = decide(halted, fleet(ended("canary", "rolled_back"), reds=[RED]), NOW)
    assert states(after)["canary"] is NodeState.ROLLED_BACK


def test_a_silent_node_holds_the_next_wave_and_is_named() -> None:
    begun = decide(make(), fleet(), NOW)
    quiet = view("witness", heard=NOW - SILENT_AFTER_S - 1)
    held = decide(begun, fleet(ended("canary"), quiet), NOW)
    assert held.state is RolloutState.RUNNING
    assert states(held)["stable"] is NodeState.WAITING
    assert held.reason == "waits to hear of witness"
    again = decide(held, fleet(ended("canary")), NOW)
    assert states(again)["stable"] is NodeState.PENDING


def test_a_report_of_another_order_says_nothing() -> None:
    other = ended("canary").upgrade
    assert other is not None
    stale = view("canary", upgrade=other.model_copy(update={"order": "00000000:canary"}))
    assert states(decide(make(), fleet(stale), NOW))["canary"] is NodeState.PENDING


VIEWS = st.sampled_from(
    ["old", "silent", "moving", "done", "unsigned", "unready", "rolled_back", "dropped", "stuck"]
)


def drawn(name: str, kind: str) -> NodeView:
    upgrade = UpgradeReport(order=f"{ID}:{name}", release=RELEASE, phase="soaking", began=0)
    match kind:
        case "silent":
            return view(name, heard=None)
        case "moving":
            return view(name, upgrade=upgrade)
        case "done":
            return ended(name)
        case "unsigned":
            return ended(name, attested_by=[])
        case "unready":
            return ended(name, status=Verdict.UNKNOWN)
        case "rolled_back" | "dropped" | "stuck":
            return ended(name, kind)
        case _:
            return view(name)


@settings(max_examples=300)
@given(st.lists(st.tuples(VIEWS, VIEWS, VIEWS, st.booleans()), min_size=1, max_size=6))
def test_whatever_happens_one_wave_moves_and_every_decision_is_stable(
    story: list[tuple[str, str, str, bool]],
) -> None:
    """P2 and P3 over random histories: never two waves at once, nothing new after a halt, and the
    same knowledge twice changes nothing."""
    rollout = make()
    for step, (*kinds, red) in enumerate(story):
        views = [drawn(name, kind) for (name, _), kind in zip(NODES, kinds, strict=True)]
        known = fleet(*views, reds=[RED] if red else [])
        before, rollout = rollout, decide(rollout, known, NOW + step * 0.001)
        assert decide(rollout, known, NOW + step * 0.001) == rollout
        flagged = {node.wave for node in rollout.nodes if node.state is NodeState.PENDING}
        assert len(flagged) <= 1
        for node in rollout.nodes:
            earlier = [each for each in rollout.nodes if each.wave < node.wave]
            if node.state is NodeState.PENDING:
                assert all(each.state is NodeState.DONE for each in earlier)
        if before.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
            assert rollout.state is before.state
        if rollout.state is not RolloutState.RUNNING:
            assert NodeState.PENDING not in states(rollout).values()
        assert (
            all(node.reason or node.state is NodeState.DONE for node in rollout.nodes)
            or before is rollout
        )


def silent(*, since: float = 600.0, left: bool = False) -> dict[str, Absence]:
    return {"witness": Absence(since=since, left=left)}


def test_a_node_that_is_silent_to_its_peers_pauses_and_flags_are_taken_back() -> None:
    begun = decide(make(), fleet(), NOW)
    known = [view("canary", away=silent()), view("stable", away=silent(since=605.0))]
    paused = decide(begun, fleet(*known), NOW)
    assert paused.state is RolloutState.RUNNING
    assert paused.reason == "held: witness is silent to canary, stable since 00:10:00 UTC"
    assert set(states(paused).values()) == {NodeState.WAITING}
    assert paused.nodes[0].reason == paused.reason
    assert states(decide(paused, fleet(), NOW))["canary"] is NodeState.PENDING, "by itself"


def test_who_has_left_pauses_too_and_is_not_called_silent() -> None:
    paused = decide(make(), fleet(view("stable", away=silent(left=True))), NOW)
    assert paused.reason == "held: witness said goodbye to stable at 00:10:00 UTC"
    assert states(paused)["canary"] is NodeState.WAITING


def test_a_node_that_moves_goes_on_while_a_peer_is_silent() -> None:
    begun = decide(make(), fleet(), NOW)
    upgrade = UpgradeReport(order=f"{ID}:canary", release=RELEASE, phase="staged", began=0)
    moving = decide(begun, fleet(view("canary", upgrade=upgrade, away=silent())), NOW)
    assert states(moving)["canary"] is NodeState.MOVING
    assert moving.reason.startswith("held: witness is silent")


def test_what_a_node_said_that_is_not_heard_any_more_pauses_nothing_by_itself() -> None:
    late = NOW - SILENT_AFTER_S - 1
    waiting = decide(make(), fleet(view("stable", away=silent(), heard=late)), NOW)
    assert waiting.reason == "waits to hear of stable"
    strange = {"stranger": Absence(since=0)}
    assert decide(make(), fleet(view("stable", away=strange)), NOW).reason == ""


def test_a_node_that_is_looked_at_says_who_has_not_signed() -> None:
    begun = decide(make(), fleet(), NOW)
    upgrade = UpgradeReport(order=f"{ID}:canary", release=RELEASE, phase="attested", began=0)
    looked = decide(begun, fleet(view("canary", upgrade=upgrade, attested_by=["stable"])), NOW + 5)
    assert (looked.nodes[0].waits_for, looked.nodes[0].since) == (["witness"], NOW + 5)
    staged = upgrade.model_copy(update={"phase": "staged"})
    busy = decide(begun, fleet(view("canary", upgrade=staged)), NOW)
    assert busy.nodes[0].waits_for == ["canary"]
