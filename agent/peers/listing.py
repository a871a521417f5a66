"""What `rollcall-agent peers` shows: for each peer whether and how it is reached, and why not."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from agent.peers.directory import Directory, Failure, netloc
from shared.report import Addresses
from shared.wire import NodeName, Reason, Wire

SHOWN_HINTS = 16
SHOWN_FAILURES = 8


class PeerState(StrEnum):
    LINKED = "linked"
    REACHED = "reached"
    """It answered a request of its own a moment ago. The kept connection is being made, or, in a large fleet, none is
    kept with this peer."""
    UNTRIED = "untried"
    """An address is known since a moment ago."""
    BLOCKED = "blocked"
    """Addresses are known, and none of them leads there."""
    EMPTY = "empty"
    """Nothing is known of where it could be."""


class FailedAddress(Wire):
    address: str
    reason: Reason
    at: float


class PeerLine(Wire):
    """`address` is where it is reached now, and `found` who gave that. Times are on the wall clock."""

    name: NodeName
    state: PeerState
    address: str = ""
    found: str = ""
    since: float | None = None
    rtt_ms: float | None = None
    """Of one small question over the link, asked for this listing."""
    last_reached: float | None = None
    hints: dict[str, Annotated[list[str], Field(max_length=SHOWN_HINTS)]] = {}
    """What is known by who said so."""
    failures: Annotated[list[FailedAddress], Field(max_length=SHOWN_FAILURES)] = []


class Looked(Wire):
    """Where addresses are looked for."""

    mdns: bool
    trouble: Reason = ""
    """Why there is no mDNS now, though it is wanted."""
    interfaces: list[str] = []
    static: int = 0
    coordinator: bool = False
    """Whether its list is to be had now."""


class PeersReport(Wire):
    node: NodeName
    at: float
    peers: list[PeerLine]
    looked: Looked
    addresses: Addresses = []
    """Where this node says that it can be reached."""
    alerts: list[Reason] = []
    platform: str = sys.platform


def state_of(*, linked: bool, reached: bool, hints: int, failures: int) -> PeerState:
    if linked:
        return PeerState.LINKED
    if reached:
        return PeerState.REACHED
    if not hints:
        return PeerState.EMPTY
    return PeerState.BLOCKED if failures else PeerState.UNTRIED


def peer_line(directory: Directory, name: str, *, linked: bool, rtt_ms: float | None) -> PeerLine:
    reach, hints = directory.reach(name), directory.hints(name)
    failures = directory.failures(name)
    by_source: dict[str, list[str]] = {}
    for hint in hints:
        by_source.setdefault(hint.found, []).append(netloc(hint))
    return PeerLine(
        name=name,
        state=state_of(
            linked=linked, reached=reach is not None, hints=len(hints), failures=len(failures)
        ),
        address="" if reach is None else netloc(reach.hint) if reach.hint.port else reach.hint.host,
        found="" if reach is None else reach.hint.found,
        since=None if reach is None else reach.since,
        rtt_ms=rtt_ms,
        last_reached=directory.last_reached(name),
        hints={found: known[:SHOWN_HINTS] for found, known in by_source.items()},
        failures=[_failed(each) for each in failures[:SHOWN_FAILURES]],
    )


def _failed(failure: Failure) -> FailedAddress:
    return FailedAddress(address=failure.address, reason=failure.reason, at=failure.at)
