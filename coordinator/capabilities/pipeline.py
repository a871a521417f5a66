"""The gates through which a capability is published and unpublished: pure. `advance` takes a run one step on by what
is known now; whoever calls it makes the orders that `wanted` names, takes back those of `unwanted`, and stores the
run with its index entry.

Up to G3 nothing has been done, and a failure ends the run. From G4 on a failure sends every node back to what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator.capabilities.returning import begin_return, go_back
from shared.capability import (
    GATE_NAMES,
    OPEN_RUNS,
    PUBLISH,
    UNPUBLISH,
    Capability,
    CapabilityReport,
    CapabilityRun,
    Gate,
    GateState,
    GateView,
    IndexEntry,
    IndexState,
    NodeStep,
    RunNode,
    RunState,
    Stage,
    Verb,
    in_range,
)
from shared.errors import BadInputError
from shared.messages import Verdict
from shared.orders import OPEN, OrderKind, OrderState, OrderView
from shared.rollout import NodeView
from shared.wire import short

SILENT_AFTER_S = 30.0
POSTCHECK_S = 180.0
"""How long the nodes may take to be green again after the last of them has it."""
MAY = frozenset({"operator", "admin"})
STAGES = {Gate.G4: Stage.INSTALL, Gate.G5: Stage.WIRE, Gate.G6: Stage.SMOKE}


@dataclass(frozen=True)
class Facts:
    """`capability` is None when operators sign for it no more, `untrusted` says what else is wrong with what they
    signed. `orders` are this run's, `reports` what their nodes handed in."""

    capability: Capability | None
    untrusted: str
    nodes: Mapping[str, NodeView]
    now: float
    orders: Mapping[str, OrderView] = field(default_factory=dict)
    reports: Mapping[str, CapabilityReport] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """An order that the run needs. The same key stands for the same order, whoever is killed in between."""

    node: str
    kind: OrderKind
    capability: str
    label: str
    key: str
    back: bool


@dataclass(frozen=True)
class Step:
    """`entry` is the index as it is from now on; None leaves it."""

    run: CapabilityRun
    entry: IndexEntry | None = None


def gates_of(verb: Verb) -> list[GateView]:
    gates = PUBLISH if verb is Verb.PUBLISH else UNPUBLISH
    return [GateView(gate=gate, name=GATE_NAMES[gate]) for gate in gates]


def current(run: CapabilityRun) -> GateView | None:
    """The gate that is not passed yet."""
    return next((gate for gate in run.gates if gate.state is not GateState.PASSED), None)


def advance(run: CapabilityRun, facts: Facts) -> Step:
    """One step, or the same run where there is nothing to do but wait."""
    if run.state is RunState.ROLLING_BACK:
        return Step(go_back(run, facts.orders, facts.now))
    gate = current(run)
    if run.state not in OPEN_RUNS or gate is None:
        return Step(run)
    if gate.state is GateState.WAITING:
        return Step(_set(run, gate.gate, GateState.RUNNING, "", facts.now))
    return _GATES[gate.gate](run, facts)


def _set(
    run: CapabilityRun, gate: Gate, state: GateState, reason: str, now: float
) -> CapabilityRun:
    """A reason that changes is no other state: `since` stays."""

    def changed(view: GateView) -> GateView:
        since = view.since if view.state is state else now
        return view.model_copy(update={"state": state, "reason": short(reason), "since": since})

    gates = [changed(view) if view.gate is gate else view for view in run.gates]
    return run.model_copy(update={"gates": gates})


def _passed(run: CapabilityRun, gate: Gate, reason: str, now: float) -> CapabilityRun:
    after = _set(run, gate, GateState.PASSED, reason, now)
    if current(after) is None:
        done = {
            "state": RunState.SUCCEEDED,
            "reason": f"{run.label}: every gate passed",
            "since": now,
        }
        return after.model_copy(update=done)
    return after


def _waits(run: CapabilityRun, gate: Gate, reason: str, now: float) -> Step:
    return Step(_set(run, gate, GateState.RUNNING, reason, now))


def _failed(run: CapabilityRun, gate: Gate, reason: str, now: float) -> Step:
    """What was begun is taken back; before that there is nothing to take back."""
    after = _set(run, gate, GateState.FAILED, reason, now)
    said = f"{gate} {GATE_NAMES[gate]}: {reason}"
    if run.verb is Verb.UNPUBLISH or gate < Gate.G4:
        ended = {"state": RunState.FAILED, "reason": short(said), "since": now}
        return Step(after.model_copy(update=ended))
    entry = _entry_before(run, now) if gate is Gate.G9 else None
    return Step(begin_return(after, short(said), now), entry)


def _entry_before(run: CapabilityRun, now: float) -> IndexEntry:
    """The index as it was, where G8 has changed it already."""
    before = run.previous is not None
    return IndexEntry(
        name=run.name,
        version=run.previous_label.partition("@")[2] or run.version,
        capability=run.previous or run.capability,
        state=IndexState.ACTIVE if before else IndexState.SIGNED,
        nodes=run.previous_nodes,
        since=now,
        by=run.by,
        run=run.id,
    )


def _g0(run: CapabilityRun, facts: Facts) -> Step:
    gate = current_of(run)
    if run.role not in MAY:
        return _failed(run, gate, f"{run.by} is a {run.role}; an operator may", facts.now)
    return Step(_passed(run, gate, f"{run.by}, {run.role}", facts.now))


def current_of(run: CapabilityRun) -> Gate:
    gate = current(run)
    if gate is None:
        raise BadInputError(f"run {run.id} has passed every gate")
    return gate.gate


def _g1(run: CapabilityRun, facts: Facts) -> Step:
    """What was signed is understood whole, and is for the OpenClaw that its targets run."""
    found = facts.capability
    if found is None:
        return _failed(run, Gate.G1, f"{run.label} has no manifest that can be read", facts.now)
    if found.unknown:
        words = ", ".join(found.unknown[:3])
        return _failed(run, Gate.G1, f"the manifest says {words}, which is unknown here", facts.now)
    for node in run.nodes:
        view = facts.nodes.get(node.node)
        version = None if view is None else view.version_on_disk
        if version is not None and not _fits(version, found.manifest.openclaw):
            why = f"it is for OpenClaw {found.manifest.openclaw}; {node.node} has {version}"
            return _failed(run, Gate.G1, why, facts.now)
    words = f"{found.manifest.kind} {found.manifest.id}, OpenClaw {found.manifest.openclaw}"
    return Step(_passed(run, Gate.G1, words, facts.now))


def _fits(version: str, wanted: str) -> bool:
    try:
        return in_range(version, wanted)
    except BadInputError:
        return False


def _g2(run: CapabilityRun, facts: Facts) -> Step:
    if facts.capability is None or facts.untrusted:
        why = facts.untrusted or f"operators do not sign for {run.label} any more"
        return _failed(run, Gate.G2, why, facts.now)
    said = f"signed target {run.capability[:12]}, {len(facts.capability.manifest.artifacts)} files"
    return Step(_passed(run, Gate.G2, said, facts.now))


def _g3(run: CapabilityRun, facts: Facts) -> Step:
    """The owner first: it takes the risk. A target that is away would leave the rollout half done."""
    owner = facts.nodes.get(run.owner)
    if owner is None:
        return _failed(
            run, Gate.G3, f"its owner {run.owner} is no live node of this fleet", facts.now
        )
    for node in run.nodes:
        view = facts.nodes.get(node.node)
        if why := _away(node.node, view, facts.now):
            return _failed(run, Gate.G3, why, facts.now)
    said = f"{run.owner} was heard {facts.now - (owner.heard or facts.now):.0f} s ago"
    return Step(_passed(run, Gate.G3, said, facts.now))


def _away(name: str, view: NodeView | None, now: float) -> str:
    if view is None:
        return f"{name} is no live node of this fleet"
    if view.heard is None or now - view.heard > SILENT_AFTER_S:
        ago = "never" if view.heard is None else f"{now - view.heard:.0f} s ago"
        return f"{name} is not there: heard {ago}"
    if view.release is None:
        return f"{name} runs no release yet"
    return ""


def _stage(run: CapabilityRun, facts: Facts) -> Step:
    """G4 to G6 are one order of the owner, told stage by stage."""
    gate, owner = current_of(run), run.nodes[0]
    if owner.order is None:
        return Step(_ordered(run, owner.node))
    order, report = facts.orders.get(owner.order), facts.reports.get(owner.order)
    if order is None:
        return _waits(run, gate, f"{owner.node}: its order is not known yet", facts.now)
    if order.state in OPEN:
        if _is_past(order.reason, gate):
            return Step(_passed(run, gate, f"{owner.node}: done", facts.now))
        return _waits(run, gate, f"{owner.node}: {_open_words(order, facts)}", facts.now)
    stage = (
        next((each for each in report.stages if each.stage is STAGES[gate]), None)
        if report
        else None
    )
    if stage is not None and stage.ok:
        return Step(_passed(run, gate, f"{owner.node}: {stage.seconds:.1f} s", facts.now))
    if stage is None and order.state is OrderState.COMPLETED:
        why = f"{owner.node} says nothing of its {STAGES[gate]}"
        return _failed(_judged(run, facts), gate, why, facts.now)
    why = stage.reason if stage is not None else f"the order is {_words(order)}"
    return _failed(_judged(run, facts), gate, f"{owner.node}: {why}", facts.now)


def _is_past(said: str, gate: Gate) -> bool:
    """Whether the node's own words are of a later stage than this gate's."""
    stages = list(Stage)
    named = next((stage for stage in stages if said.startswith(stage.value)), None)
    return named is not None and stages.index(named) > stages.index(STAGES[gate])


def _open_words(order: OrderView, facts: Facts) -> str:
    """With what its node waits for before it claims it."""
    view = facts.nodes.get(order.node)
    waits = view.waiting if view is not None and order.id in view.waiting else ""
    return (
        f"{order.state}: {waits}" if waits and order.state is OrderState.PENDING else _words(order)
    )


def _words(order: OrderView) -> str:
    return f"{order.state}{f': {order.reason}' if order.reason else ''}"


def _ordered(run: CapabilityRun, *names: str) -> CapabilityRun:
    nodes = [
        node.model_copy(update={"step": NodeStep.ORDERED}) if node.node in names else node
        for node in run.nodes
    ]
    return run.model_copy(update={"nodes": nodes})


def _judged(run: CapabilityRun, facts: Facts) -> CapabilityRun:
    """The nodes with what became of their orders."""
    return run.model_copy(update={"nodes": [_judge(node, facts) for node in run.nodes]})


def _judge(node: RunNode, facts: Facts) -> RunNode:
    order = None if node.order is None else facts.orders.get(node.order)
    if order is None or node.step is not NodeStep.ORDERED:
        return node
    if order.state in OPEN:
        return node.model_copy(update={"reason": short(_open_words(order, facts))})
    if order.state is OrderState.COMPLETED:
        return node.model_copy(update={"step": NodeStep.DONE, "reason": order.reason})
    report = facts.reports.get(order.id)
    undone = report is not None and report.undone
    step = NodeStep.RETURNED if undone else NodeStep.FAILED
    return node.model_copy(update={"step": step, "reason": short(_words(order))})


def _each(run: CapabilityRun, facts: Facts) -> Step:
    """G7 and U2: one order for each node that has none; then they are awaited."""
    gate = current_of(run)
    after = _judged(run, facts)
    waiting = [node.node for node in after.nodes if node.step is NodeStep.WAITING]
    if waiting:
        return Step(_ordered(after, *waiting))
    bad = [node for node in after.nodes if node.step in (NodeStep.FAILED, NodeStep.RETURNED)]
    busy = [node for node in after.nodes if node.step is NodeStep.ORDERED]
    if bad and (gate is Gate.G7 or not busy):
        return _failed(after, gate, f"{bad[0].node}: {bad[0].reason}", facts.now)
    if busy:
        said = "; ".join(f"{node.node} {node.reason}" for node in busy[:3])
        done = len(after.nodes) - len(busy)
        return _waits(after, gate, f"{done} of {len(after.nodes)}; waits for {said}", facts.now)
    return Step(_passed(after, gate, f"{len(after.nodes)} of {len(after.nodes)}", facts.now))


def _entry(run: CapabilityRun, state: IndexState, nodes: list[str], now: float) -> IndexEntry:
    return IndexEntry(
        name=run.name,
        version=run.version,
        capability=run.capability,
        state=state,
        nodes=nodes,
        everywhere=run.everywhere,
        since=now,
        by=run.by,
        run=run.id,
    )


def _g8(run: CapabilityRun, facts: Facts) -> Step:
    names = [node.node for node in run.nodes]
    entry = _entry(run, IndexState.ACTIVE, names, facts.now)
    said = f"active on {len(names)} nodes"
    return Step(_passed(run, Gate.G8, said, facts.now), entry)


def _g9(run: CapabilityRun, facts: Facts) -> Step:
    """Every node was heard since, and is green. Doing badly for longer than it takes to start is a failure."""
    began = next(gate.since for gate in run.gates if gate.gate is Gate.G9) or facts.now
    for node in run.nodes:
        view = facts.nodes.get(node.node)
        heard = view is not None and view.heard is not None and view.heard > began
        if view is None or not heard or view.status is not Verdict.GREEN:
            said = (
                "was not heard since"
                if not heard or view is None
                else f"is {view.status}: {view.reason}"
            )
            if facts.now - began > POSTCHECK_S:
                return _failed(run, Gate.G9, f"{node.node} {said}", facts.now)
            return _waits(run, Gate.G9, f"{node.node} {said}", facts.now)
    return Step(_passed(run, Gate.G9, f"{len(run.nodes)} nodes are green", facts.now))


def _u1(run: CapabilityRun, facts: Facts) -> Step:
    names = [node.node for node in run.nodes]
    entry = _entry(run, IndexState.DISABLED, names, facts.now)
    return Step(_passed(run, Gate.U1, "nobody new is given it", facts.now), entry)


def _u3(run: CapabilityRun, facts: Facts) -> Step:
    entry = _entry(run, IndexState.ARCHIVED, [], facts.now)
    return Step(_passed(run, Gate.U3, f"archived by {run.by}", facts.now), entry)


def _u4(run: CapabilityRun, facts: Facts) -> Step:
    """What stays: this run, its orders and their results, in the database and in the audit log's order of things."""
    orders = sum(node.order is not None for node in run.nodes)
    return Step(_passed(run, Gate.U4, f"{run.label} is unpublished; {orders} orders", facts.now))


_GATES: Mapping[Gate, Callable[[CapabilityRun, Facts], Step]] = {
    Gate.G0: _g0,
    Gate.G1: _g1,
    Gate.G2: _g2,
    Gate.G3: _g3,
    Gate.G4: _stage,
    Gate.G5: _stage,
    Gate.G6: _stage,
    Gate.G7: _each,
    Gate.G8: _g8,
    Gate.G9: _g9,
    Gate.U0: _g0,
    Gate.U1: _u1,
    Gate.U2: _each,
    Gate.U3: _u3,
    Gate.U4: _u4,
}
