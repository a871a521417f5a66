"""Plans: waves, checks, refusals, versions side by side, and the hash that a start names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rollout.begin import rollout_of
from coordinator.rollout.decide import decide
from coordinator.rollout.facts import Fleet
from coordinator.rollout.neighbours import below_full, neighbours
from coordinator.rollout.plan import plan_undo, plan_upgrade
from coordinator.rollout.skew import train_of
from coordinator.rollout.waves import plan_waves
from shared.fleetsettings import FleetSettings, Strategy
from shared.freezing import By, Freeze
from shared.messages import Verdict
from shared.protocol import SPOKEN, ProtocolRange
from shared.readiness import CheckStatus
from shared.release import AgentBuild, Release
from shared.report import Asker, Standing, UpgradeReport
from shared.rollout import (
    NodeState,
    NodeView,
    Rollout,
    RolloutKind,
    RolloutOptions,
    RolloutRequest,
    RolloutState,
    WaveKind,
)
from shared.rolloutplan import Plan, what_changed
from shared.roster import NodeClass, Role
from tests.unit.test_release import manifest
from tests.unit.test_rollout import NOW, RED

OLD = "b" * 64
NEW = "a" * 64


def release(openclaw: str = "2026.9.6", **changes: object) -> Release:
    made = manifest().model_copy(update={"openclaw": openclaw, "expires": NOW + 1e6, **changes})
    return Release(id=NEW, manifest=made)


STANDING = Standing(
    release=OLD,
    whole=True,
    schema_versions="1/1",
    state_bytes=1 << 20,
    free_bytes=1 << 30,
    same_disk=True,
    at=NOW,
)
BROKEN = STANDING.model_copy(update={"whole": False})


ASKER = Asker(address="10.0.0.9", via="agent-check", asked=0)


def node(name: str, role: Role = Role.STABLE, **changes: object) -> NodeView:
    base = NodeView(
        name=name,
        role=role,
        joined=0,
        heard=NOW,
        status=Verdict.GREEN,
        release=OLD,
        version_running="2026.8.1",
        agent_version="0.1.0",
        protocol=SPOKEN,
        standing=STANDING,
    )
    return base.model_copy(update=changes)


THREE = [node("c", Role.CANARY), node("s"), node("w", Role.WITNESS)]


def known(nodes: list[NodeView] | None = None, **more: object) -> Fleet:
    return Fleet({each.name: each for each in nodes or THREE}, [], **more)  # type: ignore[arg-type]


def plan(fleet: Fleet | None = None, to: Release | None = None, **asked: object) -> Plan:
    request = RolloutRequest.model_validate({"release": NEW, **asked})
    return plan_upgrade(request, fleet or known(), to or release(), SPOKEN, NOW)


def waves(planned: Plan) -> list[tuple[str, list[str]]]:
    return [(str(wave.kind), wave.nodes) for wave in planned.waves]


def gates(planned: Plan) -> list[str]:
    return [refusal.gate for refusal in planned.refusals]


def test_canaries_first_and_the_defaults_of_the_settings() -> None:
    planned = plan()
    assert waves(planned) == [("canary", ["c"]), ("gateways", ["s"]), ("gateways", ["w"])]
    assert [wave.soak_s for wave in planned.waves] == [7200, 60, 60]
    assert (planned.refusals, planned.options.max_unavailable) == ([], "1")
    assert planned.estimated_s == 3 * 120 + 7200 + 2 * 60


def test_without_a_canary_the_first_stable_node_is_one() -> None:
    assert waves(plan(known(THREE[1:])))[0] == ("canary", ["s"])


def test_immediate_moves_all_at_once_and_says_so() -> None:
    planned = plan(strategy="immediate")
    assert waves(planned) == [("gateways", ["c", "s", "w"])]
    assert planned.waves[0].at_once == 3
    assert "all nodes are out at once: nothing serves meanwhile" in planned.warnings


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [
        (3, "1", [1, 1, 1]),
        (3, "10%", [1, 1, 1]),
        (3, "2", [2, 1]),
        (3, "100%", [3]),
        (1000, "10%", [100] * 10),
        (1000, "300", [300, 300, 300, 100]),
    ],
)
def test_rolling_by_count_and_by_percent(count: int, batch: str, sizes: list[int]) -> None:
    nodes = [node(f"n{at:04}") for at in range(count)]
    planned = plan(known(nodes), strategy="rolling", batch=batch, max_unavailable=batch)
    assert [len(wave.nodes) for wave in planned.waves] == sizes
    assert planned.refusals == []


def test_a_plan_of_a_thousand_nodes_does_not_keep_the_coordinator_busy() -> None:
    nodes = [node(f"n{at:04}", site=f"s{at % 7}") for at in range(1000)]
    began = time.monotonic()
    plan(known(nodes), strategy="rolling", batch="10%")
    assert time.monotonic() - began < 2


CLASSES = [
    node("b", class_=NodeClass.BOOTSTRAP),
    node("c", Role.CANARY),
    node("g"),
    node("w1", class_=NodeClass.WORKER, labels={"cohort": "z9"}),
    node("w2", class_=NodeClass.WORKER, labels={"cohort": "a1"}),
    node("w3", class_=NodeClass.WORKER, labels={"cohort": "a1"}),
    node("x", Role.CANARY, class_=NodeClass.SCHEDULER),
]


def test_classes_move_in_their_order_and_cohorts_apart() -> None:
    planned = plan(known(CLASSES), batch="5")
    assert waves(planned) == [
        ("bootstrap", ["b"]),
        ("canary", ["c"]),
        ("gateways", ["g"]),
        ("workers", ["w2", "w3"]),
        ("workers", ["w1"]),
        ("scheduler", ["x"]),
    ]
    at_once = plan(known(CLASSES), strategy="immediate")
    assert [kind for kind, _ in waves(at_once)] == ["bootstrap", "gateways", "workers", "scheduler"]


def test_what_is_there_already_is_skipped_and_canaries_that_are_prove_it() -> None:
    there = [node("c", Role.CANARY, release=NEW), *THREE[1:]]
    planned = plan(known(there))
    assert waves(planned) == [("gateways", ["s"]), ("gateways", ["w"])]
    begun = rollout_of(planned, "a1b2c3d4", "op", NOW)
    assert (begun.nodes[0].name, begun.nodes[0].state) == ("c", NodeState.DONE)
    all_there = plan(known([each.model_copy(update={"release": NEW}) for each in THREE]))
    assert (all_there.waves, all_there.refusals) == ([], [])
    assert "there is nothing to do: no node would move" in all_there.warnings
    ended = decide(rollout_of(all_there, "a1b2c3d4", "op", NOW), known(), NOW)
    assert ended.state is RolloutState.SUCCEEDED


def test_only_the_named_nodes_move() -> None:
    planned = plan(only=["w", "s"])
    assert [each.name for each in planned.nodes] == ["s", "w"]
    assert gates(plan(only=["nobody"])) == ["only"]


@pytest.mark.parametrize(
    ("gate", "planned"),
    [
        ("nodes", plan(Fleet({}, []))),
        ("red", plan(Fleet(known().nodes, [RED]))),
        ("frozen", plan(known(settings=FleetSettings(frozen="holidays")))),
        ("expired", plan(to=release(expires=NOW))),
        ("blocked", plan(known(rollbacks={NEW: 3}))),
        ("soak", plan(soak=60)),
        ("train", plan(known([node("a", version_running="2026.6.2")]))),
        ("direction", plan(known([node("a", version_running="2026.9.7")]))),
        ("protocol", plan(known([*THREE, node("z", protocol=ProtocolRange(min=900, max=901))]))),
        ("way-back", plan(known([node("a", standing=BROKEN)]))),
        ("blocklist", plan(known([node("a", blocked=[NEW]), node("b")]))),
        ("adjacency", plan(known([node("a", balancers=[ASKER]), node("b")]), steps=[100])),
    ],
)
def test_the_impossible_is_refused_with_reason_and_remedy(gate: str, planned: Plan) -> None:
    assert gate in gates(planned)
    refusal = next(each for each in planned.refusals if each.gate == gate)
    assert refusal.reason
    assert refusal.remedy


def test_stranded_work_warns_or_refuses_as_is_set() -> None:
    words = ("3 tasks of orders wait for build b1, which no live worker has",)
    warned = plan(known(stranded=words))
    assert (warned.refusals, words[0] in warned.warnings) == ([], True)
    strict = plan(known(stranded=words, settings=FleetSettings(validation="fail")))
    assert (gates(strict), words[0] in strict.warnings) == (["cohorts"], False)
    assert "op froze" in plan(known(ratios_frozen="op froze all")).warnings[0]


@pytest.mark.parametrize(
    ("soak", "strategy", "really"),
    [(1800, "canary", False), (1, "canary", True), (1, "rolling", False)],
)
def test_canaries_are_watched_for_half_an_hour_unless_really(
    soak: float, strategy: str, really: bool
) -> None:
    assert plan(soak=soak, strategy=strategy, yes_really=really).refusals == []


@pytest.mark.parametrize(
    ("before", "after", "adjacent"),
    [
        ("2026.8.1", "2026.9.6", True),
        ("2026.9.1", "2026.9.6", True),
        ("2025.12.3", "2026.1.1", True),
        ("2026.7.1", "2026.9.6", False),
        ("2026.7.35", "2026.9.6", True),
        ("2026.7.35", "2026.10.1", True),
        ("2026.7.35", "2026.11.1", False),
        ("2026.8.1-beta.2", "2026.10.1", False),
    ],
)
def test_adjacent_trains(before: str, after: str, adjacent: bool) -> None:
    a, b = train_of(before), train_of(after)
    assert a is not None
    assert b is not None
    assert a.is_adjacent(b) is adjacent
    assert b.is_adjacent(a) is adjacent
    planned = plan(known([node("a", version_running=before)]), release(after))
    assert (gates(planned) == []) is adjacent


def test_a_version_of_another_form_has_no_train() -> None:
    assert train_of("nightly") is None
    assert plan(known([node("a", version_running="nightly")])).refusals == []


def test_stop_the_world_is_the_explicit_other_way() -> None:
    nodes = [node("a", version_running="2026.5.1"), node("b", class_=NodeClass.SCHEDULER)]
    assert gates(plan(known(nodes))) == ["train"]
    planned = plan(known(nodes), stop_the_world=True)
    assert (planned.refusals, waves(planned)) == ([], [("all", ["a", "b"])])
    assert planned.waves[0].at_once == 2
    assert any("stop the world" in each for each in planned.warnings)
    apart = [node("a"), node("z", protocol=ProtocolRange(min=900, max=901))]
    assert gates(plan(known(apart), stop_the_world=True)) == []


def test_an_agent_that_the_coordinator_does_not_understand_is_refused_in_any_way() -> None:
    agent = AgentBuild(
        version="9.0.0",
        file="rollcall-9.0.0-py3-none-any.whl",
        sha256="c" * 64,
        size=1,
        protocol=ProtocolRange(min=900, max=901),
    )
    planned = plan(to=release(agent=agent), stop_the_world=True)
    assert gates(planned) == ["protocol"]


def test_checks_of_each_node_are_shown() -> None:
    frozen = Freeze(by=By.HAND, who="op", why="disk", since=NOW, node="s")
    nodes = [THREE[0], node("s", freezes=[frozen]), node("w", Role.WITNESS, standing=None)]
    planned = plan(known(nodes))
    found = {each.name: {check.id: check.status for check in each.checks} for each in planned.nodes}
    assert found["c"]["way-back"] is CheckStatus.PASS
    assert found["s"]["freeze"] is CheckStatus.WARN
    assert found["w"]["way-back"] is CheckStatus.UNKNOWN
    assert "not known of w" in planned.way_back
    assert any("s: frozen since" in each for each in planned.warnings)


def test_the_hash_is_of_what_would_be_done_and_not_of_times_and_sizes() -> None:
    first = plan()
    later = plan_upgrade(RolloutRequest(release=NEW), known(), release(), SPOKEN, NOW + 20)
    assert first.sha256 == later.sha256
    assert what_changed(first, later) == []
    assert plan(strategy="rolling").sha256 != first.sha256


def test_what_has_changed_is_said() -> None:
    before = plan()
    after = plan(known([*THREE[:2], node("n"), node("w", Role.WITNESS, site="x")]))
    words = what_changed(before, after)
    assert "n is new" in words
    assert "w: wave 3 becomes 4, site none becomes x" in words
    assert "c: below full traffic until s becomes n" in words
    moved = known([node("c", Role.CANARY, release=NEW), *THREE[1:]])
    said = "; ".join(what_changed(plan(), plan(moved)))
    assert "runs it already: no becomes yes" in said
    red = plan(Fleet(known().nodes, [RED]))
    assert what_changed(before, red) == ["now refused: red of canary: x [canary:1:1]"]
    assert what_changed(red, before) == ["not refused any more: red of canary: x [canary:1:1]"]
    assert what_changed(plan(settle=1), plan(settle=2)) == ["other defaults for settle"]


def test_neighbours_by_name_within_a_site_and_by_label() -> None:
    nodes = {
        each.name: each
        for each in (
            node("a", site="x"),
            node("b", site="x"),
            node("c", site="x", labels={"neighbours": "a"}),
            node("d", site="y"),
            node("e", site="y", labels={"neighbours": "-"}),
            node("w", site="y", class_=NodeClass.WORKER),
        )
    }
    assert neighbours(nodes) == {"a": {"b", "c"}, "b": {"a"}, "c": {"a"}, "d": set(), "e": set()}


def held(name: str, moved: set[str], *nodes: NodeView) -> list[str]:
    views = {each.name: each for each in nodes}
    return below_full(name, views, neighbours(views), frozenset(moved))


def test_of_two_neighbours_on_different_cores_the_upgraded_one_stays_below_full() -> None:
    a, b, c = node("a", version_running="2026.9.6"), node("b"), node("c")
    assert held("a", {"a"}, a, b, c) == ["b"]
    assert held("b", {"a"}, a, b, c) == []
    assert held("a", {"a"}, a, node("b", version_running=None), c) == []
    both = node("b", version_running="2026.9.6")
    assert held("a", {"a", "b"}, a, both, c) == []
    assert held("b", {"a", "b"}, a, both, c) == ["c"]


def test_a_plan_says_who_stays_below_full_until_whom() -> None:
    planned = plan(known([node("a"), node("b"), node("c")]), strategy="rolling")
    assert {each.name: each.below_full_until for each in planned.nodes} == {
        "a": ["b"],
        "b": ["c"],
        "c": [],
    }


def moved(planned: Plan) -> Rollout:
    """As it would have ended well."""
    begun = rollout_of(planned, "a1b2c3d4", "op", NOW)
    nodes = [
        each.model_copy(update={"state": NodeState.DONE, "flagged": NOW}) for each in begun.nodes
    ]
    ended = {"nodes": nodes, "state": RolloutState.SUCCEEDED, "ended": NOW}
    return begun.model_copy(update=ended)


def upgraded(name: str, outcome: str = "done", order: str = "a1b2c3d4") -> NodeView:
    report = UpgradeReport(
        order=f"{order}:{name}", release=NEW, phase="done", outcome=outcome, began=0
    )
    return node(name, upgrade=report, release=NEW)


def undo(fleet: Fleet, of: Rollout, **asked: object) -> Plan:
    return plan_undo(RolloutRequest.model_validate({"undo": of.id, **asked}), fleet, of, NOW)


def test_an_undo_takes_each_node_to_what_it_ran_before() -> None:
    before = [node("c", Role.CANARY, release="1" * 64), node("s", release="2" * 64)]
    rollout = moved(plan(known(before)))
    planned = undo(known([upgraded("c"), upgraded("s")]), rollout)
    assert (planned.kind, planned.refusals) == (RolloutKind.UNDO, [])
    found = {each.name: (each.release, each.undoes) for each in planned.nodes}
    assert found == {"c": ("1" * 64, "a1b2c3d4:c"), "s": ("2" * 64, "a1b2c3d4:s")}
    begun = rollout_of(planned, "00000001", "op", NOW)
    flagged = decide(begun, known([upgraded("c"), upgraded("s")]), NOW)
    assert [each.state for each in flagged.nodes] == [NodeState.PENDING, NodeState.WAITING]
    back = upgraded("c", "rolled_back").model_copy(update={"release": "1" * 64})
    after = decide(flagged, known([back, upgraded("s")]), NOW)
    assert [each.state for each in after.nodes] == [NodeState.DONE, NodeState.PENDING]
    stuck = decide(flagged, known([upgraded("c", "stuck"), upgraded("s")]), NOW)
    assert stuck.state is RolloutState.HALTED


def test_what_cannot_be_undone_is_refused() -> None:
    rollout = moved(plan(known([node("s")])))
    assert gates(undo(known([upgraded("s", order="00000009")]), rollout)) == ["way-back"]
    assert gates(undo(known([upgraded("s", "rolled_back")]), rollout)) == ["way-back"]
    first = moved(plan(known([node("s", release=None)])))
    assert gates(undo(known([upgraded("s")]), first)) == ["way-back"]
    running = rollout.model_copy(update={"state": RolloutState.RUNNING, "ended": None})
    assert gates(undo(known([upgraded("s")]), running)) == ["running"]
    none_of_these = rollout.model_copy(
        update={"nodes": [each.model_copy(update={"flagged": None}) for each in rollout.nodes]}
    )
    assert gates(undo(known([upgraded("s")]), none_of_these)) == ["nothing"]
    reds = Fleet({"s": upgraded("s")}, [RED])
    assert gates(undo(reds, rollout)) == [], "a red may be why it is undone"


ROLES = st.sampled_from(list(Role))
KINDS = st.sampled_from(list(NodeClass))


@given(
    st.lists(st.tuples(ROLES, KINDS, st.sampled_from(["", "x", "y"])), max_size=30),
    st.sampled_from(list(Strategy)),
    st.sampled_from(["1", "3", "10%", "100%"]),
    st.booleans(),
)
def test_whatever_the_fleet_each_node_moves_once_and_singletons_alone(
    drawn: list[tuple[Role, NodeClass, str]], strategy: Strategy, batch: str, proven: bool
) -> None:
    nodes = [
        node(f"n{at:02}", role, class_=class_, site=site)
        for at, (role, class_, site) in enumerate(drawn)
    ]
    found = plan_waves(nodes, RolloutOptions(strategy=strategy, batch=batch), proven=proven)
    names = [name for wave in found for name in wave.nodes]
    assert sorted(names) == sorted(each.name for each in nodes)
    alone = {WaveKind.BOOTSTRAP, WaveKind.SCHEDULER}
    assert all(len(wave.nodes) == 1 for wave in found if wave.kind in alone)
    order = [WaveKind.BOOTSTRAP, WaveKind.CANARY, WaveKind.GATEWAYS, WaveKind.WORKERS]
    places = [[*order, WaveKind.SCHEDULER].index(wave.kind) for wave in found]
    assert places == sorted(places)
