"""The gates of capabilities, each failing: pure decisions about a run, its orders and its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from coordinator.capabilities.ordering import unwanted, wanted, with_order
from coordinator.capabilities.pipeline import POSTCHECK_S, Facts, advance, gates_of
from shared.capability import (
    Capability,
    CapabilityManifest,
    CapabilityReport,
    CapabilityRun,
    Gate,
    GateState,
    IndexEntry,
    IndexState,
    NodeStep,
    RunNode,
    RunState,
    Stage,
    StageReport,
    Verb,
)
from shared.messages import Verdict
from shared.orders import OrderKind, OrderState, OrderTerms, OrderView
from shared.rollout import NodeView
from shared.roster import Role

ID, BEFORE, RELEASE = "a" * 64, "b" * 64, "c" * 64
NAMES = ("canary", "stable", "witness")


def manifest(**changes: Any) -> CapabilityManifest:
    values: dict[str, Any] = {
        "name": "greeter",
        "version": "1.0.0",
        "kind": "plugin",
        "id": "greeter",
        "package": "@rollcall/greeter",
        "artifacts": [{"file": "greeter.tgz", "sha256": "d" * 64, "size": 10}],
        "owner": "canary",
        "smoke": ["listed", "loaded"],
        "created": 1.0,
        "expires": 1e9,
    }
    return CapabilityManifest.model_validate({**values, **changes})


@dataclass
class World:
    """A run with orders that do as they are told to."""

    run: CapabilityRun
    now: float = 1000.0
    untrusted: str = ""
    capability: Capability | None = field(
        default_factory=lambda: Capability(id=ID, manifest=manifest())
    )
    orders: dict[str, OrderView] = field(default_factory=dict)
    reports: dict[str, CapabilityReport] = field(default_factory=dict)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    index: list[IndexEntry] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hear()

    def hear(self, **changes: dict[str, Any]) -> None:
        for name in NAMES:
            about = {
                "name": name,
                "role": Role.STABLE,
                "joined": 1.0,
                "heard": self.now,
                "status": Verdict.GREEN,
                "release": RELEASE,
                "version_on_disk": "2026.9.6",
                **changes.get(name, {}),
            }
            self.nodes[name] = NodeView.model_validate(about)

    def go(self) -> CapabilityRun:
        """As far as it goes by itself; orders are made as they are wanted."""
        for _ in range(100):
            facts = Facts(
                self.capability, self.untrusted, self.nodes, self.now, self.orders, self.reports
            )
            step = advance(self.run, facts)
            after = step.run
            self.cancelled += unwanted(after)
            for want in wanted(after):
                order = f"{len(self.orders):08x}:{want.node}"
                self.orders[order] = OrderView(
                    id=order,
                    node=want.node,
                    kind=want.kind,
                    terms=OrderTerms(subject=want.capability, label=want.label),
                    created=self.now,
                    created_by="capabilities",
                    since=self.now,
                )
                after = with_order(after, want, order)
            self.index += [step.entry] if step.entry is not None else []
            if after == self.run:
                return after
            self.run = after
        raise AssertionError("the run never rests")

    def end(self, node: str, *, failed: Stage | None = None, undone: bool = True) -> None:
        """The open order of this node ends."""
        order = next(o for o in self.orders.values() if o.node == node and o.ended is None)
        stages = []
        for stage in Stage:
            stages.append(
                StageReport(stage=stage, ok=stage is not failed, reason="it is so", seconds=1)
            )
            if stage is failed:
                break
        state = OrderState.FAILED if failed else OrderState.COMPLETED
        said = {
            "state": state,
            "ended": self.now,
            "reason": f"{failed} failed" if failed else "done",
        }
        self.orders[order.id] = order.model_copy(update=said)
        if order.kind is OrderKind.INSTALL_CAPABILITY:
            self.reports[order.id] = CapabilityReport(
                node=node,
                capability=ID,
                label="greeter@1.0.0",
                stages=stages,
                undone=failed is not None and undone,
            )

    def gate(self, gate: Gate) -> tuple[GateState, str]:
        found = next(each for each in self.run.gates if each.gate is gate)
        return found.state, found.reason

    def open_orders(self) -> list[tuple[str, OrderKind, str]]:
        return [
            (order.node, order.kind, str(order.terms.subject)[0])
            for order in self.orders.values()
            if order.ended is None
        ]


def run_of(verb: Verb = Verb.PUBLISH, **changes: Any) -> CapabilityRun:
    values: dict[str, Any] = {
        "id": "0a1b2c3d",
        "verb": verb,
        "capability": ID,
        "name": "greeter",
        "version": "1.0.0",
        "owner": "canary",
        "by": "first",
        "role": "operator",
        "created": 1000.0,
        "since": 1000.0,
        "gates": gates_of(verb),
        "nodes": [RunNode(node=name) for name in NAMES],
    }
    return CapabilityRun.model_validate({**values, **changes})


@pytest.fixture
def world() -> World:
    return World(run_of())


def after_smoke(world: World) -> World:
    world.go()
    world.end("canary")
    world.go()
    return world


def test_it_goes_through_every_gate_with_one_order_for_each_node(world: World) -> None:
    world.go()
    assert world.open_orders() == [("canary", OrderKind.INSTALL_CAPABILITY, "a")]
    assert world.gate(Gate.G3)[0] is GateState.PASSED
    assert world.gate(Gate.G4) == (GateState.RUNNING, "canary: pending")
    world.end("canary")
    world.go()
    assert world.gate(Gate.G6)[0] is GateState.PASSED
    assert [each[0] for each in world.open_orders()] == ["stable", "witness"]
    world.end("stable")
    world.go()
    assert world.gate(Gate.G7)[1].startswith("2 of 3; waits for witness")
    world.end("witness")
    world.go()
    assert world.index[-1].state is IndexState.ACTIVE
    assert world.gate(Gate.G9)[1] == "canary was not heard since"
    world.now += 1
    world.hear()
    assert world.go().state is RunState.SUCCEEDED
    assert all(gate.state is GateState.PASSED for gate in world.run.gates)
    assert len(world.orders) == 3


def test_what_a_node_waits_for_before_it_claims_is_told(world: World) -> None:
    world.go()
    (order,) = world.orders
    world.hear(canary={"waiting": f"order {order} (install_capability) waits: hands off"})
    world.go()
    assert world.gate(Gate.G4)[1].endswith("waits: hands off")


def test_the_words_of_the_node_open_gates_before_its_order_ends(world: World) -> None:
    world.go()
    (order,) = world.orders.values()
    said = {"state": OrderState.IN_PROGRESS, "reason": "smoke test: loaded"}
    world.orders[order.id] = order.model_copy(update=said)
    world.go()
    assert world.gate(Gate.G5)[0] is GateState.PASSED
    assert world.gate(Gate.G6) == (GateState.RUNNING, "canary: in_progress: smoke test: loaded")


def _unknown(world: World) -> None:
    world.capability = Capability(id=ID, manifest=manifest(), unknown=["powers"])


def _for_others(world: World) -> None:
    world.capability = Capability(id=ID, manifest=manifest(openclaw=">=2026.9.7"))


@pytest.mark.parametrize(
    ("gate", "how", "why"),
    [
        (Gate.G0, lambda w: setattr(w, "run", run_of(role="viewer")), "an operator may"),
        (Gate.G1, lambda w: setattr(w, "capability", None), "no manifest"),
        (Gate.G1, _unknown, "powers, which is unknown here"),
        (Gate.G1, _for_others, "canary has 2026.9.6"),
        (Gate.G2, lambda w: setattr(w, "untrusted", "it has expired"), "it has expired"),
        (Gate.G3, lambda w: w.nodes.pop("canary"), "canary is no live node"),
        (Gate.G3, lambda w: w.hear(canary={"heard": 900.0}), "heard 100 s ago"),
        (Gate.G3, lambda w: w.hear(witness={"heard": None}), "witness is not there: heard never"),
        (Gate.G3, lambda w: w.hear(stable={"release": None}), "stable runs no release yet"),
    ],
)
def test_before_g4_a_failure_ends_it_and_nothing_was_ordered(
    world: World, gate: Gate, how: Any, why: str
) -> None:
    how(world)
    run = world.go()
    state, reason = world.gate(gate)
    assert (run.state, state) == (RunState.FAILED, GateState.FAILED)
    assert why in reason
    assert world.orders == {}
    assert world.index == []


@pytest.mark.parametrize(
    ("gate", "stage"), [(Gate.G4, Stage.INSTALL), (Gate.G5, Stage.WIRE), (Gate.G6, Stage.SMOKE)]
)
def test_a_stage_that_failed_and_was_undone_leaves_nothing_to_take_back(
    world: World, gate: Gate, stage: Stage
) -> None:
    world.go()
    world.end("canary", failed=stage)
    run = world.go()
    assert world.gate(gate) == (GateState.FAILED, "canary: it is so")
    assert run.state is RunState.FAILED
    assert run.reason.endswith("rolled back")
    assert world.open_orders() == []


def test_a_node_that_could_not_undo_it_is_told_to_take_it_out(world: World) -> None:
    world.go()
    world.end("canary", failed=Stage.SMOKE, undone=False)
    assert world.go().state is RunState.ROLLING_BACK
    assert world.open_orders() == [("canary", OrderKind.REMOVE_CAPABILITY, "a")]
    world.end("canary")
    assert world.go().state is RunState.FAILED
    assert world.run.nodes[0].step is NodeStep.RETURNED


def test_a_failure_of_the_rollout_takes_back_what_others_have_and_what_they_are_at(
    world: World,
) -> None:
    after_smoke(world)
    world.end("stable", failed=Stage.WIRE)
    run = world.go()
    assert run.state is RunState.ROLLING_BACK
    assert len(world.cancelled) == 2  # canary's, which has ended, and witness's, which has not
    waiting = [each for each in world.open_orders() if each[1] is OrderKind.REMOVE_CAPABILITY]
    assert [each[0] for each in waiting] == ["canary", "witness"]


def test_a_node_that_cannot_go_back_is_named(world: World) -> None:
    after_smoke(world)
    world.end("stable", failed=Stage.WIRE)
    world.end("witness")
    world.go()
    world.end("canary", failed=Stage.WIRE)
    world.end("witness")
    assert world.go().state is RunState.FAILED
    assert world.run.reason.endswith("and canary cannot go back")


def test_nodes_go_back_to_the_version_that_they_had_and_new_ones_to_none() -> None:
    world = World(
        run_of(previous=BEFORE, previous_label="greeter@0.9.0", previous_nodes=["canary", "stable"])
    )
    after_smoke(world)
    world.end("stable")
    world.end("witness")
    world.go()
    world.now += POSTCHECK_S + 1
    world.hear(stable={"status": Verdict.RED, "reason": "no"})
    assert world.go().state is RunState.ROLLING_BACK
    assert world.gate(Gate.G9) == (GateState.FAILED, "stable is red: no")
    assert world.open_orders() == [
        ("canary", OrderKind.INSTALL_CAPABILITY, "b"),
        ("stable", OrderKind.INSTALL_CAPABILITY, "b"),
        ("witness", OrderKind.REMOVE_CAPABILITY, "a"),
    ]
    entry = world.index[-1]
    assert (entry.state, entry.version) == (IndexState.ACTIVE, "0.9.0")
    assert entry.nodes == ["canary", "stable"]


def test_an_order_that_expired_or_was_cancelled_fails_its_gate(world: World) -> None:
    world.go()
    (order,) = world.orders.values()
    said = {"state": OrderState.EXPIRED, "ended": world.now, "reason": "nobody took it"}
    world.orders[order.id] = order.model_copy(update=said)
    assert world.go().state is RunState.ROLLING_BACK
    assert world.gate(Gate.G4)[1] == "canary: the order is expired: nobody took it"


def test_unpublish_takes_it_off_every_node_and_then_archives_it() -> None:
    world = World(run_of(Verb.UNPUBLISH))
    world.go()
    assert world.index[-1].state is IndexState.DISABLED
    kinds = {each[1] for each in world.open_orders()}
    assert (kinds, len(world.open_orders())) == ({OrderKind.REMOVE_CAPABILITY}, 3)
    for name in NAMES:
        world.end(name)
    assert world.go().state is RunState.SUCCEEDED
    assert (world.index[-1].state, world.index[-1].nodes) == (IndexState.ARCHIVED, [])
    assert world.gate(Gate.U4)[1] == "greeter@1.0.0 is unpublished; 3 orders"


def test_an_unpublish_that_fails_on_one_node_ends_when_all_have_answered() -> None:
    world = World(run_of(Verb.UNPUBLISH))
    world.go()
    world.end("canary", failed=Stage.WIRE)
    assert world.go().state is RunState.RUNNING
    world.end("stable")
    world.end("witness")
    run = world.go()
    assert run.state is RunState.FAILED
    assert world.gate(Gate.U2)[1].startswith("canary: failed")
    assert world.index[-1].state is IndexState.DISABLED


def test_a_viewer_unpublishes_nothing() -> None:
    world = World(run_of(Verb.UNPUBLISH, role="viewer"))
    assert world.go().state is RunState.FAILED
    assert world.orders == {}


def test_an_order_is_wanted_under_the_same_key_until_it_is_there(world: World) -> None:
    facts = Facts(world.capability, "", world.nodes, world.now)
    run = world.run
    while not wanted(run):
        run = advance(run, facts).run
    (want,) = wanted(run)
    assert wanted(advance(run, facts).run) == [want]
    assert want.key == "0a1b2c3d:canary:go"
    assert wanted(with_order(run, want, "00000000:canary")) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"package": None}, "names its npm package"),
        ({"kind": "skill", "package": None, "smoke": ["loaded"]}, "no gateway loads it"),
        (
            {"kind": "skill", "package": None, "smoke": ["ready"], "config": {"a": 1}},
            "without config",
        ),
        ({"openclaw": "^2026.9.6"}, "no comparator"),
        ({"config": {"a": "x" * 70_000}}, "larger than"),
        ({"smoke": ["rm -rf"]}, "Input should be"),
        ({"name": "../up"}, "should match pattern"),
    ],
)
def test_a_manifest_says_only_what_nodes_do(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        manifest(**changes)


def test_config_reaches_only_its_own_entry() -> None:
    made = manifest(config={"config": {"words": "hi"}})
    assert made.overlay() == {"plugins": {"entries": {"greeter": {"config": {"words": "hi"}}}}}
    assert manifest().overlay() == {}


def test_a_run_that_has_ended_stays_so(world: World) -> None:
    ended = run_of(state=RunState.FAILED, reason="over")
    step = advance(ended, Facts(None, "", {}, 5.0))
    assert (step.run, step.entry) == (ended, None)
