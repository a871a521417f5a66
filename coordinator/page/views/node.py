"""One node: how it is, what it runs, whom it knows, what it did, and what can be asked of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from coordinator.page import words
from coordinator.page.deeds import Offer
from coordinator.page.pictures import Sparkline, sparkline_of
from coordinator.page.views.fleet import OpenRed, open_red, waits_of
from shared.nodes import NodeUpgrade
from shared.orders import OPEN, OrderKind, OrderView
from shared.readiness import CheckStatus
from shared.report import SaidCheck
from shared.rollout import LIVE, NodeView, RedView, Rollout
from shared.sparkline import in_words
from shared.traffic import NodeTraffic

MEMORY_CEILING = 4 << 30
"""The memory guard's usual one (DESIGN.md, 5); drawn where memory comes near it."""
OFTEN_SHOWN = ("memory_bytes", "tasks_per_minute", "start_p95_ms", "queue_depth", "loop_p99_ms")


@dataclass(frozen=True)
class Peer:
    name: str
    how: str
    away: str
    since: float | None


@dataclass(frozen=True)
class CheckLine:
    check: SaidCheck
    observed: str
    limit: str


@dataclass(frozen=True)
class NodePage:
    node: NodeView
    checks: tuple[CheckLine, ...]
    headline: str
    waits: str
    since: float | None
    sparks: tuple[Sparkline, ...]
    peers: tuple[Peer, ...]
    reds: tuple[OpenRed, ...]
    offers: tuple[Offer, ...]
    share: str
    share_waits: str
    open_orders: tuple[OrderView, ...]
    upgrades: Sequence[NodeUpgrade]
    ssh: str


@dataclass(frozen=True)
class AboutNode:
    """What the page is made of, as the API answers."""

    node: NodeView
    upgrades: Sequence[NodeUpgrade]
    everyone: Sequence[NodeView]
    reds: Sequence[RedView]
    rollout: Rollout | None
    orders: Sequence[OrderView]
    traffic: NodeTraffic | None


def node_page(about: AboutNode) -> NodePage:
    node = about.node
    live = about.rollout if about.rollout and about.rollout.state in LIVE else None
    waits, since = waits_of(node, live)
    mine = [red for red in about.reds if red.open and red.origin == node.name]
    return NodePage(
        node=node,
        checks=_checks(node),
        headline=_headline(node),
        waits=waits,
        since=since,
        sparks=_sparks(node),
        peers=_peers(node),
        reds=tuple(open_red(red, about.everyone) for red in mine),
        offers=tuple(offers_of(node, about.traffic)),
        share=_share(node, about.traffic),
        share_waits="" if about.traffic is None else about.traffic.waits,
        open_orders=tuple(order for order in about.orders if order.state in OPEN),
        upgrades=about.upgrades,
        ssh=ssh_command(node),
    )


def _headline(node: NodeView) -> str:
    health = "" if node.health_score is None else f", health {node.health_score} of 100"
    reason = f": {node.reason}" if node.reason else ""
    return f"{node.name} is {node.node_status}{health}, readiness {node.status}{reason}"


_WORST_FIRST = (CheckStatus.FAIL, CheckStatus.UNKNOWN, CheckStatus.WARN, CheckStatus.PASS)


def _checks(node: NodeView) -> tuple[CheckLine, ...]:
    """What does not pass first."""
    ordered = sorted(node.checks, key=lambda check: _WORST_FIRST.index(check.status))
    return tuple(
        CheckLine(check, _read(check.observed, check.unit), _read(check.limit, check.unit))
        for check in ordered
    )


def _read(value: float | str | None, unit: str | None) -> str:
    if value is None:
        return words.NONE
    if not isinstance(value, str):
        return in_words(value, unit)
    return words.hash_of(value) if re.fullmatch(r"[0-9a-f]{40,80}", value) else value


def _sparks(node: NodeView) -> tuple[Sparkline, ...]:
    known = {trend.name: trend for trend in node.trends}
    names = [name for name in OFTEN_SHOWN if name in known]
    names += [name for name in known if name not in OFTEN_SHOWN]
    drawn = (
        sparkline_of(known[name], MEMORY_CEILING if name == "memory_bytes" else None)
        for name in names
    )
    return tuple(each for each in drawn if each is not None)


def _peers(node: NodeView) -> tuple[Peer, ...]:
    found = []
    for name, how in sorted(node.peers.items()):
        absence = node.away.get(name)
        away = "" if absence is None else ("it has left" if absence.left else "silent")
        since = None if absence is None else absence.since
        found.append(Peer(name, how or "not reached", away, since))
    return tuple(found)


def _share(node: NodeView, traffic: NodeTraffic | None) -> str:
    actual = words.NONE if node.weight is None else f"{node.weight} %"
    if traffic is None or traffic.desired is None:
        return f"{actual}, nobody has said what it should be"
    by = f" by {traffic.by}" if traffic.by else ""
    pinned = ", until it is given back" if traffic.pinned else ""
    return f"{actual} of {traffic.desired} % wanted{by}{pinned}"


def offers_of(node: NodeView, traffic: NodeTraffic | None) -> list[Offer]:
    order, share = "POST /v1/orders", "POST /v1/traffic/nodes/{name}"
    base = f"/nodes/{node.name}"
    cordoned = traffic is not None and traffic.pinned
    cordon = (
        Offer(f"{base}/uncordon", "Uncordon …", share)
        if cordoned
        else Offer(f"{base}/cordon", "Cordon …", share)
    )
    return [
        Offer(f"/rollouts/new?only={quote(node.name)}", "Upgrade …", "POST /v1/plans"),
        Offer(f"{base}/rollback", "Roll back …", order, danger=True),
        Offer(f"{base}/restart", "Restart …", order, danger=True),
        cordon,
        Offer(f"{base}/collect_logs", "Collect logs …", order),
        Offer(f"{base}/describe", "Describe …", "PUT /v1/nodes/{name}/attributes"),
    ]


def ssh_command(node: NodeView) -> str:
    """To be copied, never run from here. An address is text of an operator's: what is not plain is left out."""
    plain = node.address and all(c.isalnum() or c in "-._:@[]" for c in node.address)
    return f"ssh {node.address}" if plain and not node.address.startswith("-") else ""


def what_order_does(node: NodeView, kind: OrderKind) -> list[str]:
    name, running = node.name, node.version_running or "nothing"
    if kind is OrderKind.RESTART:
        return [
            f"The gateway of {name} is restarted on what it runs: OpenClaw {running}.",
            "Before that the load balancers drain it and the work in hand finishes, unless that is left out below.",
            "It waits while too many other nodes are out, unless it is urgent.",
        ]
    if kind is OrderKind.ROLLBACK:
        return [
            f"{name} goes back to the release before the one that it runs (OpenClaw {running}), by its own bookmark:"
            " package tree, plugins, configuration, state and traffic.",
            "What the new version has written since is set aside where the form of the state differs.",
            "The agent refuses where its bookmark does not allow it, and says why.",
        ]
    return [
        f"{name} sends the end of its logs, without what looks like a secret.",
        "Errors of a form that is new since its upgrade stand first. Nothing on the node changes.",
    ]
