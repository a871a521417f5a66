"""`rollcall-agent peers`: whom this node reaches, how it found them, and why not."""

from __future__ import annotations

import sys

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent
from agent.peers.listing import Looked, PeerLine, PeersReport, PeerState
from shared.terminal import print_json

app = typer.Typer()

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
LOCAL_NETWORK = "macOS can keep a LaunchAgent from the local network without a prompt: run the agent as a LaunchDaemon"


@app.command()
def peers(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show whom this node reaches, how it found them, and why it does not reach the others."""
    report = PeersReport.from_bytes(ask_agent(home, "GET", "/v1/peers"))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in describe_peers(report):
        sys.stdout.write(line + "\n")


def describe_peers(report: PeersReport) -> list[str]:
    """One line a peer; below one that is not reached what is known and what came of it."""
    linked = sum(each.state is PeerState.LINKED for each in report.peers)
    where = ", ".join(report.addresses) or "no address that others could dial"
    lines = [f"{report.node}: {linked} of {len(report.peers)} peers linked; reachable at {where}"]
    width = max((len(each.name) for each in report.peers), default=0) + 2
    for peer in report.peers:
        lines.append(f"  {peer.name:{width}}{peer.state:9}{_said(peer, report)}".rstrip())
        if peer.state in (PeerState.BLOCKED, PeerState.UNTRIED):
            lines += [f"  {'':{width}}{'':9}{line}" for line in _addresses(peer)]
    if _nothing_reached(report) and report.platform == "darwin":
        lines.append(f"  hint      {LOCAL_NETWORK}")
    lines += [f"  alert     {alert}" for alert in report.alerts]
    return lines


def _said(peer: PeerLine, report: PeersReport) -> str:
    if peer.state is PeerState.EMPTY:
        return f"no address is known: {_looked(report.looked)}"
    if peer.state in (PeerState.BLOCKED, PeerState.UNTRIED):
        return _last(peer, report.at)
    parts = [f"{peer.address} ({peer.found})"]
    if peer.rtt_ms is not None:
        parts.append(f"{peer.rtt_ms:.1f} ms")
    if peer.since is not None:
        parts.append(f"for {_span(report.at - peer.since)}")
    return ", ".join(parts)


def _last(peer: PeerLine, now: float) -> str:
    if peer.last_reached is None:
        return "never reached"
    return f"last reached {_span(now - peer.last_reached)} ago"


def _addresses(peer: PeerLine) -> list[str]:
    """Each address once, with who gave it and what came of dialling it."""
    sources: dict[str, list[str]] = {}
    for found, addresses in peer.hints.items():
        for address in addresses:
            sources.setdefault(address, []).append(found)
    reasons = {each.address: each.reason for each in peer.failures}
    return [
        f"{address} ({', '.join(found)}): {reasons.get(address, 'not tried yet')}"
        for address, found in sources.items()
    ]


def _looked(looked: Looked) -> str:
    if not looked.mdns:
        mdns = "mDNS is off"
    elif looked.trouble:
        mdns = f"mDNS does not work ({looked.trouble})"
    else:
        mdns = f"mDNS on {', '.join(looked.interfaces)} has not named it"
    static = f"none of {looked.static} static peers" if looked.static else "no static peers"
    coordinator = (
        "the coordinator's list has none" if looked.coordinator else "coordinator not reached"
    )
    return f"{mdns}, {static}, {coordinator}"


def _nothing_reached(report: PeersReport) -> bool:
    reached = (PeerState.LINKED, PeerState.REACHED)
    return bool(report.peers) and not any(each.state in reached for each in report.peers)


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for size, word in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
