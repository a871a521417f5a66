"""A rollout as the API shows it: which release, in which waves, and a reason for every node (P9)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.freezing import Freeze
from shared.messages import Verdict
from shared.protocol import ProtocolRange
from shared.report import Absence, Broadcast, Standing, Trend, UpgradeReport, WayBack
from shared.roster import Role
from shared.wire import NodeName, Reason, Sha256, Wire


class Strategy(StrEnum):
    IMMEDIATE = "immediate"
    ROLLING = "rolling"
    CANARY = "canary"


class RolloutState(StrEnum):
    RUNNING = "running"
    HALTED = "halted"
    SUCCEEDED = "succeeded"


class NodeState(StrEnum):
    WAITING = "waiting"
    PENDING = "pending"
    """Its flag is set; the agent has not begun."""
    MOVING = "moving"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


FINAL = frozenset({NodeState.DONE, NodeState.ROLLED_BACK, NodeState.FAILED})


class RolloutNode(Wire):
    """`reason` says what this node waits for or why it ended so; `since` when that began to be true."""

    name: NodeName
    role: Role
    wave: int
    order: str
    state: NodeState = NodeState.WAITING
    reason: Reason = ""
    since: float
    way_back: WayBack | None = None
    """As foreseen when the rollout was planned; None for a node that has not said enough of itself."""


class Rollout(Wire):
    id: str
    release: Sha256
    label: str
    strategy: Strategy
    soak_s: float
    set_by: str
    created: float
    state: RolloutState = RolloutState.RUNNING
    reason: Reason = ""
    ended: float | None = None
    nodes: list[RolloutNode]

    def find(self, name: str) -> RolloutNode | None:
        return next((node for node in self.nodes if node.name == name), None)


class TargetRequest(Wire):
    """`release` is an id, a prefix of at least eight characters, or a name."""

    release: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    strategy: Strategy = Strategy.CANARY
    soak_s: Annotated[float, Field(ge=0, le=7 * 86400)] = 1800
    set_by: Annotated[str, Field(max_length=64)] = "operator"
    dry_run: bool = False


class NodeView(Wire):
    """A node as the coordinator knows it: its last report, and what its peers signed about it."""

    name: NodeName
    role: Role
    site: str = ""
    joined: float
    heard: float | None = None
    """Wall time of the last sync; None before the first."""
    age_s: float | None = None
    status: Verdict = Verdict.UNKNOWN
    reason: Reason = ""
    ready_probe_sha256: Sha256 | None = None
    evidence_sha256: Sha256 | None = None
    release: Sha256 | None = None
    version_on_disk: str | None = None
    version_running: str | None = None
    agent_version: str = ""
    protocol: ProtocolRange | None = None
    upgrade: UpgradeReport | None = None
    waiting: Reason = ""
    frozen_by: list[str] = []
    freezes: list[Freeze] = []
    peers: dict[NodeName, str] = {}
    away: dict[NodeName, Absence] = {}
    """Which of its peers are not there, as this node says."""
    urls: dict[str, str] = {}
    broadcasts: list[Broadcast] = []
    alerts: list[Reason] = []
    certificate_expires: float | None = None
    roster_epoch: int = 0
    standing: Standing | None = None
    trends: list[Trend] = []
    attested_by: list[NodeName] = []
    """Peers whose signed green of this node's last order the coordinator has checked itself."""


class RedEnd(StrEnum):
    ORIGIN = "origin"
    OPERATOR = "operator"


class RedView(Wire):
    key: str
    origin: NodeName
    kind: str
    reason: Reason
    issued: float
    open: bool
    ended_by: RedEnd | None = None
    acked_by: list[NodeName]


class FleetView(Wire):
    """Everything a watcher draws, in one answer."""

    generation: int
    nodes: list[NodeView]
    reds: list[RedView]
    rollout: Rollout | None = None
