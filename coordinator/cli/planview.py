"""A plan and a rollout in words, for people at a terminal."""

from __future__ import annotations

from coordinator.saying import span
from shared.readiness import CheckStatus
from shared.rollout import LIVE, NodeState, Rollout, RolloutNode, RolloutState
from shared.rolloutplan import Plan, PlanNode

SHOWN = 20
"""Nodes of a wave that are named."""


def describe_plan(plan: Plan, *, checks: bool = True) -> list[str]:
    """Waves, then each node's checks, what stays, warnings, refusals, and the hash to start it by."""
    lines = [
        f"plan {plan.sha256[:12]}: {plan.kind} to {plan.label}, {plan.options.strategy},"
        f" about {span(plan.estimated_s)}"
    ]
    for number, wave in enumerate(plan.waves, 1):
        soak = f", {span(wave.soak_s)} of it watched" if wave.soak_s else ""
        names = ", ".join(wave.nodes[:SHOWN])
        more = f" and {len(wave.nodes) - SHOWN} more" if len(wave.nodes) > SHOWN else ""
        lines.append(
            f"  wave {number}  {wave.kind:9} {names}{more}"
            f" ({wave.at_once} at once, about {span(wave.estimated_s)}{soak})"
        )
    for node in plan.nodes:
        lines += _node(node, checks=checks)
    lines.append(f"  way back: {plan.way_back}")
    lines += [f"  warning: {each}" for each in plan.warnings]
    for each in plan.refusals:
        lines.append(f"  REFUSED ({each.gate}): {each.words}")
        lines += [f"    {each.remedy}"] if each.remedy else []
    if plan.refusals:
        lines.append("  it cannot be started")
    elif not plan.waves:
        lines.append("  it would end as soon as it is started")
    else:
        lines.append(f"  start it within the hour: rollcall rollout start {plan.sha256[:12]}")
    return lines


def _node(node: PlanNode, *, checks: bool) -> list[str]:
    if node.stays:
        return [f"  {node.name}: stays, {node.stays}"]
    lines = []
    if node.below_full_until:
        others = ", ".join(node.below_full_until)
        lines.append(f"  {node.name}: below full traffic until {others} has moved")
    if checks:
        lines += [
            f"  {node.name}: {_MARK[check.status]} {check.id}: {check.reason}".rstrip(": ")
            for check in node.checks
        ]
    return lines


_MARK = {
    CheckStatus.PASS: "ok  ",
    CheckStatus.WARN: "warn",
    CheckStatus.FAIL: "FAIL",
    CheckStatus.UNKNOWN: "?   ",
}


def describe(rollout: Rollout) -> list[str]:
    """One line a node: wave, name, role, state, and what it waits for."""
    return [
        f"wave {node.wave + 1}  {node.name:12} {node.role:8} {node.state:12} {node.reason}".rstrip()
        for node in rollout.nodes
    ]


def describe_begun(rollout: Rollout) -> list[str]:
    """With what a rollback of each node would mean."""
    lines = []
    for node, line in zip(rollout.nodes, describe(rollout), strict=True):
        lines.append(line)
        way = node.way_back
        if way is not None:
            size = f"{way.snapshot_bytes >> 20} MiB to copy, about {way.snapshot_s:.0f} s"
            lines.append(f"        way back: {'; '.join(way.reasons)}; {size}")
    return lines


_AFTER_ABORT = {
    NodeState.WAITING: "is not begun",
    NodeState.PENDING: "its order is taken back before it begins",
    NodeState.MOVING: "drops its order before its outage, and goes back after it",
    NodeState.DONE: "stays on the new release; `rollcall rollout undo` takes it back",
}


def can_be_aborted(rollout: Rollout) -> bool:
    """A halted one whose nodes are still on their way can."""
    moving = any(node.state is NodeState.MOVING for node in rollout.nodes)
    return rollout.state in LIVE or (rollout.state is RolloutState.HALTED and moving)


def describe_abort(rollout: Rollout) -> list[str]:
    """What an abort means for each node; those that have ended otherwise stay as they are."""
    if not can_be_aborted(rollout):
        return [f"rollout {rollout.id} is {rollout.state}: there is nothing to abort"]
    lines = [f"rollout {rollout.id}, {rollout.kind} to {rollout.label}: {progress(rollout)}"]
    return lines + [
        f"  {node.name:12} {node.state:12} {_AFTER_ABORT.get(node.state, 'stays as it is')}"
        for node in rollout.nodes
    ]


def headline(rollout: Rollout, now: float) -> list[str]:
    """What it is, how far it is, and why it stands if it does."""
    lines = [
        f"rollout {rollout.id}, {rollout.kind} to {rollout.label}, {rollout.strategy}: {rollout.state}"
        f" for {span(now - (rollout.since or rollout.created))}, {progress(rollout)}{eta_words(rollout, now)}"
    ]
    lines += [f"  {rollout.reason}"] if rollout.reason else []
    if rollout.state is RolloutState.PAUSED:
        lines.append("  nothing new begins until: rollcall rollout resume")
    return lines


def progress(rollout: Rollout) -> str:
    done = sum(node.state is NodeState.DONE for node in rollout.nodes)
    return f"{done} of {len(rollout.nodes)} done"


LATE_S = 5.0
"""More than this beyond the estimate is said."""


def eta_words(rollout: Rollout, now: float) -> str:
    if rollout.eta is None or rollout.state not in LIVE:
        return ""
    late = now - rollout.eta
    return f", {span(late)} longer than planned" if late > LATE_S else f", about {span(-late)} left"


def row(node: RolloutNode, rollout: Rollout, now: float) -> list[str]:
    """For `rollout status`: for every node what it waits for, whom, since when."""
    paused = rollout.state is RolloutState.PAUSED and node.state is NodeState.WAITING
    return [
        str(node.wave + 1),
        node.name,
        node.role,
        node.state if node.attempt == 1 else f"{node.state} (attempt {node.attempt})",
        ", ".join(node.waits_for) or ("an operator" if paused else "-"),
        span(now - node.since),
        node.reason,
    ]


COLUMNS = ["WAVE", "NODE", "ROLE", "STATE", "WAITS FOR", "SINCE", "REASON"]
