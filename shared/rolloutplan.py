"""A rollout before it begins: which nodes would move when, what was checked, and why it cannot be started."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import StringConstraints

from shared.canonical import canonical_json, sha256_hex
from shared.readiness import CheckStatus
from shared.report import VersionWord, WayBack
from shared.rollout import RolloutId, RolloutKind, RolloutOptions, WaveKind
from shared.roster import NodeClass, Role
from shared.wire import NodeName, Order, Reason, Sha256, Wire

GateWord = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]


class PlanCheck(Wire):
    """One thing that was looked at on one node."""

    id: GateWord
    status: CheckStatus
    reason: Reason = ""


class Refusal(Wire):
    """Why the plan cannot be started, and what to do about it. `node` is None for what concerns the fleet."""

    gate: GateWord
    reason: Reason
    remedy: Reason = ""
    node: NodeName | None = None

    @property
    def words(self) -> str:
        return f"{self.node}: {self.reason}" if self.node else self.reason


class PlanWave(Wire):
    """`at_once` is how many of its nodes are out of service together at most. Durations in seconds."""

    kind: WaveKind
    nodes: list[NodeName]
    soak_s: float
    at_once: int
    estimated_s: float


class PlanNode(Wire):
    """`wave` is None for a node that stays, which `stays` explains."""

    name: NodeName
    role: Role
    class_: NodeClass
    site: str = ""
    wave: int | None = None
    stays: Reason = ""
    there: bool = False
    """It runs the release already."""
    release: Sha256 | None = None
    previous: Sha256 | None = None
    version_before: VersionWord | None = None
    undoes: Order | None = None
    way_back: WayBack | None = None
    below_full_until: list[NodeName] = []
    """Neighbours that still run another core after this node has moved: until they have moved as well, it is given
    less than all of its traffic."""
    checks: list[PlanCheck] = []


class Plan(Wire):
    """`sha256` names what would be done: everything but times, sizes and words. Two plans with one hash do the same."""

    sha256: Sha256
    kind: RolloutKind
    undoes: RolloutId | None = None
    release: Sha256
    label: str
    expires: float | None = None
    options: RolloutOptions
    waves: list[PlanWave]
    nodes: list[PlanNode]
    refusals: list[Refusal] = []
    warnings: list[Reason] = []
    estimated_s: float
    way_back: Reason
    planned: float
    window: Reason = ""
    """When upgrades may begin, if not now."""

    def find(self, name: str) -> PlanNode | None:
        return next((node for node in self.nodes if node.name == name), None)


class StartRequest(Wire):
    """The hash of a plan that was made within the last hour, or the first characters of it."""

    plan: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,64}$")]


def _fingerprint(plan: Plan) -> dict[str, Any]:
    """What two plans must have in common to be the same. Checks count by id and verdict: their words carry
    sizes and ages, which change by themselves."""
    return {
        "kind": plan.kind,
        "undoes": plan.undoes,
        "release": plan.release,
        "options": plan.options.model_dump(mode="json"),
        "waves": [[wave.kind, wave.nodes, wave.soak_s] for wave in plan.waves],
        "nodes": {node.name: _node_fingerprint(node) for node in plan.nodes},
        "refusals": sorted([each.gate, each.node or ""] for each in plan.refusals),
    }


def _node_fingerprint(node: PlanNode) -> dict[str, Any]:
    failing = sorted(check.id for check in node.checks if check.status is CheckStatus.FAIL)
    return {
        "wave": node.wave,
        "there": node.there,
        "release": node.release,
        "previous": node.previous,
        "undoes": node.undoes,
        "class": node.class_,
        "site": node.site,
        "fails": failing,
        "below_full_until": node.below_full_until,
    }


def seal_plan(plan: Plan) -> Plan:
    """The same plan with its own hash."""
    digest = sha256_hex(canonical_json(_fingerprint(plan)))
    return plan.model_copy(update={"sha256": digest})


def what_changed(before: Plan, after: Plan) -> list[str]:
    """In words, where two plans differ; empty for one and the same."""
    a, b = _fingerprint(before), _fingerprint(after)
    found = [f"{key} is another" for key in ("kind", "undoes", "release") if a[key] != b[key]]
    if a["options"] != b["options"]:
        names = [key for key in b["options"] if a["options"].get(key) != b["options"][key]]
        found.append(f"other defaults for {', '.join(names)}")
    found += [f"{name} has left" for name in sorted(a["nodes"].keys() - b["nodes"].keys())]
    found += [f"{name} is new" for name in sorted(b["nodes"].keys() - a["nodes"].keys())]
    for name in sorted(a["nodes"].keys() & b["nodes"].keys()):
        if a["nodes"][name] != b["nodes"][name]:
            found.append(f"{name}: {_node_change(a['nodes'][name], b['nodes'][name])}")
    found += [f"now refused: {each.words}" for each in after.refusals if _is_new(each, before)]
    found += [
        f"not refused any more: {each.words}" for each in before.refusals if _is_new(each, after)
    ]
    if not found and a["waves"] != b["waves"]:
        found.append("the waves are others")
    return found


_WORDS = {
    "there": "runs it already:",
    "below_full_until": "below full traffic until",
    "undoes": "undoes order",
    "previous": "runs release",
    "release": "goes to release",
}


def _node_change(before: dict[str, Any], after: dict[str, Any]) -> str:
    words = [
        f"{_WORDS.get(key, key)} {_say(key, before[key])} becomes {_say(key, after[key])}"
        for key in after
        if before[key] != after[key]
    ]
    return ", ".join(words)


def _say(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "wave" and isinstance(value, int):
        return str(value + 1)
    if key in ("release", "previous") and value:
        return str(value)[:12]
    if isinstance(value, list):
        value = ", ".join(value)
    return "none" if value in (None, "") else str(value)


def _is_new(refusal: Refusal, plan: Plan) -> bool:
    return (refusal.gate, refusal.node) not in {(each.gate, each.node) for each in plan.refusals}


EMPTY: Sha256 = "0" * 64
"""Of a plan that has not been sealed yet."""
