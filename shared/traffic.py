"""Shares of traffic: what the coordinator wants of each node, and what operators see and say of it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.canonical import sha256_hex
from shared.nodes import CohortState
from shared.wire import NodeName, Order, Reason, Sha256, Wire

FULL = 100
MAX_NODES = 10_000

Share = Annotated[int, Field(ge=0, le=FULL)]
"""Percent of what a node takes when it takes all that a load balancer would give it."""
Who = Annotated[str, StringConstraints(max_length=64)]
Why = Annotated[str, StringConstraints(min_length=1, max_length=500)]
SNAPSHOT_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
SnapshotName = Annotated[str, StringConstraints(pattern=f"^{SNAPSHOT_NAME}$")]


class Step(Wire):
    """One share that a node should take. `id` has the form of an order, and peers sign about it as about one: an
    attestation of this very step cannot be older than the step."""

    id: Order
    percent: Share
    since: float
    release: Sha256 | None = None
    """Only while the node runs this release; None is whatever it runs."""
    widens: bool = False
    """More is to come: the coordinator wants attestations of this step also where there is nothing to raise."""
    by: Who = ""
    reason: Reason = ""


class TrafficWord(Wire):
    """What a node is told. `frozen` says who holds the ratios of the whole fleet, and why; empty when nobody does."""

    step: Step | None = None
    frozen: Reason = ""

    @cached_property
    def tag(self) -> str:
        """Names this very word: an agent that has heard another one is told at once."""
        return sha256_hex(self.canonical())[:16]


class FleetFreeze(Wire):
    """An operator holds all ratios."""

    since: float
    by: Who
    reason: Reason


class NodeTraffic(Wire):
    """`desired` is None for a node that nobody has said anything about: it keeps the share it has. `actual` is what
    the node last said."""

    node: NodeName
    desired: Share | None = None
    actual: Share | None = None
    by: Who = ""
    reason: Reason = ""
    since: float | None = None
    pinned: bool = False
    """An operator's word, which stands until it is given back."""
    rollout: str = ""
    id: Order | None = None
    step: int | None = None
    """Which of the steps this is, counted from 1; None for a share that is none of them."""
    steps: int = 0
    waits: Reason = ""
    """What keeps it from its next share; empty when it is where it should be for good."""
    asked_by: list[str] = []
    """The load balancers that ask this node for its weight."""
    release: Sha256 | None = None
    cohort: CohortState | None = None
    """Of the worker on this node; None for what is no worker."""
    told: Share | None = None
    """What load balancers hear: `actual`, or 0 while the worker's build is drained. The share is kept, and counts
    again after `rollcall cohort resume`."""


class TrafficView(Wire):
    steps: list[int]
    step_for: float
    frozen: FleetFreeze | None = None
    nodes: list[NodeTraffic]


class SetShare(Wire):
    """Either `percent`, which stands until it is given back, or `auto`, which gives it back."""

    percent: Share | None = None
    auto: bool = False
    reason: Why
    dry_run: bool = False


class FreezeRequest(Wire):
    reason: Why


class TrafficEntry(Wire):
    """One change of what was wanted of a node; without a node, of what was wanted of all."""

    at: float
    node: str
    percent: int | None = None
    by: str
    reason: Reason
    rollout: str = ""
    id: str = ""


class TrafficHistory(Wire):
    history: list[TrafficEntry]


class RolloutTraffic(Wire):
    """What a rollout did with traffic: every share that was wanted because of it, newest first, and the snapshots that
    were taken beside its bookmarks."""

    history: list[TrafficEntry]
    snapshots: list[Snapshot]


class SavedShare(Wire):
    """One node in a snapshot."""

    node: NodeName
    desired: Share | None = None
    pinned: bool = False
    actual: Share | None = None
    release: Sha256 | None = None


class Snapshot(Wire):
    name: SnapshotName
    created: float
    by: Who
    reason: Reason = ""
    rollout: str = ""
    nodes: Annotated[list[SavedShare], Field(max_length=MAX_NODES)] = []


class SnapshotList(Wire):
    snapshots: list[Snapshot]


class SnapshotRequest(Wire):
    name: SnapshotName
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class RestoreRequest(Wire):
    reason: Why
    dry_run: bool = False


class Difference(Wire):
    """What a restore changes of one node, or why it changes nothing of it."""

    node: NodeName
    now: Share | None = None
    then: Share | None = None
    pinned: bool = False
    """Whether it stands until it is given back."""
    note: Reason = ""


class Restored(Wire):
    snapshot: SnapshotName
    dry_run: bool
    differences: list[Difference]
