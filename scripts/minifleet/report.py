"""What came of it, from what the nodes and the coordinator signed and stored."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from agent.peers.directory import Found
from scripts.minifleet.view import acked_by
from shared.rollout import FleetView, NodeView, Rollout, RolloutState

NOT_OURS = ("staged", "restarted", "soaking")
"""Phases whose time belongs to npm, to the gateway's start and to the operator's patience."""


def build_report(
    view: FleetView, *, before: str, after: str, seconds: float, standin: bool
) -> dict[str, Any]:
    """The final report. `outcome` is `succeeded`, `halted` or `failed`."""
    rollout = view.rollout
    nodes = [_node(node, rollout) for node in view.nodes]
    return {
        "outcome": _outcome(rollout, view),
        "reason": rollout.reason if rollout else "no rollout began",
        "from": before,
        "to": after,
        "stand_in": standin,
        "discovery": _discovery(view),
        "nodes": nodes,
        "reds": [_red(red.key, view) for red in view.reds],
        "overhead_s": overhead(rollout, view.nodes),
        "duration_s": round(seconds, 1),
    }


def _outcome(rollout: Rollout | None, view: FleetView) -> str:
    if rollout is None:
        return "failed"
    if rollout.state is RolloutState.SUCCEEDED:
        return "succeeded"
    stuck = any(node.upgrade is not None and node.upgrade.outcome == "stuck" for node in view.nodes)
    return "halted" if rollout.state is RolloutState.HALTED and not stuck else "failed"


def _discovery(view: FleetView) -> str:
    """Who gave the addresses that were dialled: `mdns, coordinator`. A node that only was dialled says nothing."""
    ways = {way for node in view.nodes for way in node.peers.values()}
    return ", ".join(each for each in Found if each in ways and each is not Found.ACCEPTED)


def _node(node: NodeView, rollout: Rollout | None) -> dict[str, Any]:
    """What this rollout did to a node; one that it never reached runs what it ran."""
    planned = rollout.find(node.name) if rollout is not None else None
    upgrade = node.upgrade
    if planned is None or upgrade is None or upgrade.order != planned.order:
        upgrade = None
    before = upgrade.version_before if upgrade else node.version_running
    return {
        "name": node.name,
        "role": node.role.value,
        "phase": upgrade.phase if upgrade else str(planned.state if planned else "waiting"),
        "reason": upgrade.reason if upgrade else (planned.reason if planned else ""),
        "version_before": before,
        "version_after": upgrade.version_after if upgrade else before,
        "running_version": node.version_running,
        "readiness": node.status.value,
        "outage_s": upgrade.outage_s if upgrade else None,
        "ready_probe_sha256": node.ready_probe_sha256,
        "evidence_sha256": node.evidence_sha256,
        "attested_by": node.attested_by if upgrade else [],
        "acks": acked_by(node) if upgrade else [],
        "rolled_back": upgrade is not None and upgrade.outcome == "rolled_back",
        "frozen": bool(node.frozen_by),
        "spent_s": upgrade.spent_s if upgrade else {},
    }


def _red(key: str, view: FleetView) -> dict[str, Any]:
    red = next(each for each in view.reds if each.key == key)
    origin = next(node for node in view.nodes if node.name == red.origin)
    sent = next((each for each in origin.broadcasts if each.key == key), None)
    acked = sent.acked_ms if sent is not None else {}
    return {
        "key": key,
        "origin": red.origin,
        "kind": red.kind,
        "reason": red.reason,
        "open": red.open,
        "acked_by": sorted({*red.acked_by, *acked}),
        "last_ack_ms": max(acked.values()) if acked else None,
    }


def overhead(rollout: Rollout | None, nodes: list[NodeView]) -> float | None:
    """Seconds of the rollout that were ours: from its start to its end, without installs, gateway
    starts and soaks."""
    if rollout is None or rollout.ended is None:
        return None
    spent = 0.0
    for node in nodes:
        if node.upgrade is not None and node.upgrade.order.startswith(f"{rollout.id}:"):
            spent += sum(node.upgrade.spent_s.get(phase, 0.0) for phase in NOT_OURS)
    return round(max(0.0, rollout.ended - rollout.created - spent), 1)


def print_summary(report: dict[str, Any], out: TextIO = sys.stdout) -> None:
    lines = [f"\n{report['outcome']}: OpenClaw {report['from']} -> {report['to']}"]
    if report["reason"]:
        lines.append(f"  {report['reason']}")
    for node in report["nodes"]:
        outage = "-" if node["outage_s"] is None else f"{node['outage_s']:.1f} s"
        lines.append(
            f"  {node['name']:8} {node['version_before'] or '-'} -> {node['running_version'] or '-'}"
            f"  {node['phase']}, {node['readiness']}, outage {outage}"
            f"{', frozen' if node['frozen'] else ''}"
        )
        lines.append(f"           hash {(node['ready_probe_sha256'] or '-')[:16]}…")
        lines.append(f"           attested by {', '.join(node['attested_by']) or 'nobody'}")
    for red in report["reds"]:
        ms = "" if red["last_ack_ms"] is None else f", the last after {red['last_ack_ms']:.0f} ms"
        lines.append(f"  red of {red['origin']}: {red['reason']}")
        lines.append(f"           acked by {', '.join(red['acked_by']) or 'nobody'}{ms}")
    lines.append(
        f"  peers found by {report['discovery']}; {report['duration_s']:.0f} s in all,"
        f" {report['overhead_s']} s of the rollout were ours"
    )
    out.write("\n".join(lines) + "\n")
    out.flush()
