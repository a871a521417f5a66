"""A rollout as the API shows it: which release, in which waves, and a reason for every node (P9)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from shared.durations import Duration
from shared.fleetsettings import AmountText, Strategy, rising_to_all
from shared.freezing import Freeze
from shared.messages import Verdict
from shared.nodes import Cohort, NodeHealth, NodeStatus, PendingUpgrade
from shared.protocol import ProtocolRange
from shared.report import (
    Absence,
    Asker,
    Broadcast,
    Concern,
    SaidCheck,
    Standing,
    Trend,
    UpgradeReport,
    WayBack,
)
from shared.roster import NodeClass, Role
from shared.wire import NodeName, Order, Reason, Sha256, Wire

RolloutId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
ReleaseText = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
"""A release's id, a prefix of it of at least eight characters, or its name."""
Who = Annotated[str, StringConstraints(max_length=64)]
MAX_NODES = 10_000


class RolloutState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    """Nothing new begins until an operator resumes it. It does not go on by itself."""
    HALTED = "halted"
    """It has ended, because something is wrong. An operator may retry it while it is the newest."""
    ABORTING = "aborting"
    """Orders are taken back; it waits until every node that had one has answered."""
    ABORTED = "aborted"
    SUCCEEDED = "succeeded"


LIVE = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTING})
"""Of these there is one at a time."""


class NodeState(StrEnum):
    WAITING = "waiting"
    PENDING = "pending"
    """Its flag is set; the agent has not begun."""
    MOVING = "moving"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    SKIPPED = "skipped"


FINAL = frozenset({NodeState.DONE, NodeState.ROLLED_BACK, NodeState.FAILED, NodeState.SKIPPED})
BAD = frozenset({NodeState.ROLLED_BACK, NodeState.FAILED})


class RolloutKind(StrEnum):
    UPGRADE = "upgrade"
    UNDO = "undo"
    """Takes each node back to what it ran before another rollout, by its own bookmark."""


class WaveKind(StrEnum):
    """Why these nodes move together."""

    ALL = "all"
    BOOTSTRAP = "bootstrap"
    CANARY = "canary"
    GATEWAYS = "gateways"
    WORKERS = "workers"
    SCHEDULER = "scheduler"


class RolloutOptions(Wire):
    """How nodes are moved, with every default filled in. Durations in seconds."""

    strategy: Strategy = Strategy.CANARY
    batch: AmountText = "1"
    max_unavailable: AmountText = "1"
    max_per_site: Annotated[int, Field(ge=0, le=MAX_NODES)] = 0
    soak: Annotated[Duration, Field(ge=0, le=7 * 86400)] = 7200.0
    settle: Annotated[Duration, Field(ge=0, le=7 * 86400)] = 60.0
    steps: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=20)] = [100]
    step_for: Annotated[Duration, Field(ge=0, le=86400)] = 60.0
    only: Annotated[list[NodeName], Field(max_length=MAX_NODES)] = []
    """Only these nodes move; all of them where it is empty."""
    stop_the_world: bool = False
    """Versions that may not live side by side: everything moves at once, and nothing serves meanwhile."""
    yes_really: bool = False


class RolloutRequest(Wire):
    """What an operator asks for. What is None comes from the fleet's settings. Either `release`, or `undo`: the
    rollout whose nodes go back to what each ran before."""

    release: ReleaseText | None = None
    undo: RolloutId | None = None
    strategy: Strategy | None = None
    batch: AmountText | None = None
    max_unavailable: AmountText | None = None
    max_per_site: Annotated[int, Field(ge=0, le=MAX_NODES)] | None = None
    soak: Annotated[Duration, Field(ge=0, le=7 * 86400)] | None = None
    settle: Annotated[Duration, Field(ge=0, le=7 * 86400)] | None = None
    steps: (
        Annotated[
            list[Annotated[int, Field(ge=1, le=100)]],
            Field(min_length=1, max_length=20),
            AfterValidator(rising_to_all),
        ]
        | None
    ) = None
    step_for: Annotated[Duration, Field(ge=0, le=86400)] | None = None
    only: Annotated[list[NodeName], Field(max_length=MAX_NODES)] = []
    stop_the_world: bool = False
    yes_really: bool = False


class TargetRequest(Wire):
    """Plan and start in one. `soak_s` is how long each node is watched, canaries and all others alike."""

    release: ReleaseText
    strategy: Strategy | None = None
    soak_s: Annotated[float, Field(ge=0, le=7 * 86400)] | None = None
    stop_the_world: bool = False
    yes_really: bool = False
    set_by: Who = "operator"
    dry_run: bool = False

    def as_request(self) -> RolloutRequest:
        return RolloutRequest(
            release=self.release,
            strategy=self.strategy,
            soak=self.soak_s,
            settle=self.soak_s,
            stop_the_world=self.stop_the_world,
            yes_really=self.yes_really,
        )


class Unblocked(Wire):
    """How many rollbacks of a release count no more."""

    release: Sha256
    forgotten: int


class VerbRequest(Wire):
    """What an operator says to a rollout, and why. `nodes` are those that are meant; for retry none is all."""

    reason: Annotated[str, StringConstraints(max_length=500)] = ""
    nodes: Annotated[list[NodeName], Field(max_length=MAX_NODES)] = []


class RolloutNode(Wire):
    """`reason` says what this node waits for or why it ended so, `waits_for` names the nodes that it waits for,
    `since` is when that began to be true."""

    name: NodeName
    role: Role
    class_: NodeClass = NodeClass.GATEWAY
    site: str = ""
    wave: int
    order: str
    release: Sha256 | None = None
    """What it is to run; None in a rollout of before each node had its own."""
    previous: Sha256 | None = None
    """What it ran when the rollout began."""
    undoes: Order | None = None
    """The order that is undone, in an undo."""
    state: NodeState = NodeState.WAITING
    reason: Reason = ""
    waits_for: list[NodeName] = []
    since: float
    phase: str = ""
    attempt: int = 1
    flagged: float | None = None
    """When its flag was set last."""
    claimed: float | None = None
    eta: float | None = None
    """When its agent expects to be done."""
    spare: bool = False
    """It was out of service before its flag was set, and uses up no slot."""
    withdrawn: Reason = ""
    """Why its order was taken back."""
    way_back: WayBack | None = None
    """As foreseen when the rollout was planned; None for a node that has not said enough of itself."""


class RolloutWave(Wire):
    kind: WaveKind
    soak_s: float
    estimated_s: float = 0
    promoted: bool = False
    """An operator has ended its soak early."""


class Rollout(Wire):
    id: str
    kind: RolloutKind = RolloutKind.UPGRADE
    undoes: RolloutId | None = None
    release: Sha256
    label: str
    strategy: Strategy
    soak_s: float
    options: RolloutOptions = RolloutOptions()
    plan: Sha256 | None = None
    """The hash of the plan that it follows."""
    epoch: int = 0
    """Greater than that of every rollout before it."""
    waves: list[RolloutWave] = []
    set_by: str
    created: float
    expires: float | None = None
    """When its release does."""
    state: RolloutState = RolloutState.RUNNING
    reason: Reason = ""
    since: float = 0
    """When its state began."""
    leased_until: float | None = None
    """Until when the coordinator that leads it has said that it does."""
    doubts: dict[str, float] = {}
    """Gates that are shut, by name, and since when: doubt that lasts pauses the rollout."""
    ended: float | None = None
    eta: float | None = None
    nodes: list[RolloutNode]

    def find(self, name: str) -> RolloutNode | None:
        return next((node for node in self.nodes if node.name == name), None)

    def wave_soak(self, wave: int) -> float:
        return self.waves[wave].soak_s if wave < len(self.waves) else self.soak_s

    def is_promoted(self, wave: int) -> bool:
        return wave < len(self.waves) and self.waves[wave].promoted


class NodeView(Wire):
    """A node as the coordinator knows it: its last report, and what its peers signed about it."""

    name: NodeName
    role: Role
    class_: NodeClass = NodeClass.GATEWAY
    site: str = ""
    labels: dict[str, str] = {}
    provider: str = ""
    region: str = ""
    address: str = ""
    joined: float
    heard: float | None = None
    """Wall time of the last sync; None before the first."""
    age_s: float | None = None
    node_status: NodeStatus = NodeStatus.PROVISIONING
    health_score: int | None = None
    """0 to 100, by coordinator/health.py; None while nothing is known."""
    health: NodeHealth | None = None
    cohort: Cohort | None = None
    pending: PendingUpgrade | None = None
    status: Verdict = Verdict.UNKNOWN
    reason: Reason = ""
    platform: str | None = None
    concerns: list[Concern] = []
    """Readiness checks that do not pass."""
    checks: list[SaidCheck] = []
    """All readiness checks, up to a minute old. Empty from an agent that does not tell of them."""
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
    withdrawn: list[Order] = []
    """Orders of which it has heard that they were taken back."""
    broadcasts: list[Broadcast] = []
    alerts: list[Reason] = []
    certificate_expires: float | None = None
    roster_epoch: int = 0
    blocked: list[Sha256] = []
    """Releases that failed there, which it does not take again."""
    standing: Standing | None = None
    trends: list[Trend] = []
    balancers: list[Asker] = []
    """The load balancers that asked it in the last minute."""
    weight: int | None = None
    """Percent of traffic that it takes."""
    weight_wanted: int | None = None
    weight_waits: Reason = ""
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
