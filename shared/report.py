"""What an agent tells the coordinator by sync, and what it gets back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.freezing import MAX_FREEZES, Freeze
from shared.messages import Verdict
from shared.nodes import Cohort, CohortIntent, NodeHealth
from shared.orders import NodeOrders
from shared.protocol import ProtocolRange
from shared.readiness import CheckStatus
from shared.traffic import FULL, Share, TrafficWord
from shared.versions import VERSION_WORD
from shared.wire import MAX_INTEGER, NodeName, Order, Reason, RedKey, Sha256, Wire

MAX_ASKED_REDS = 128
"""Open reds for which clears are asked at once; the first of them freeze as well as all."""
MAX_CLEARS = 16
MAX_WITHDRAWN = 16
MAX_BLOCKED = 64
MAX_CONCERNS = 32
MAX_CHECKS = 64

VersionWord = Annotated[str, StringConstraints(pattern=VERSION_WORD)]
"""A version as somebody's software calls itself: of our own form, or of another that is harmless."""


MAX_ADDRESSES = 8
MAX_LISTED = 1024
"""Nodes whose addresses the coordinator hands on."""
Addresses = Annotated[
    list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=MAX_ADDRESSES)
]
"""Where a node's door for peers may be, as `10.0.0.7:7465` or `[fd00::7]:7465`. Only a hint."""


class Concern(Wire):
    """A readiness check that does not pass, and why."""

    id: Annotated[str, StringConstraints(max_length=64)]
    status: CheckStatus
    reason: Annotated[str, StringConstraints(max_length=300)] = ""


class SaidCheck(Wire):
    """Any readiness check as it was at `at`, in as many words as travel with a report. `observed` and `limit` are in
    `unit`."""

    id: Annotated[str, StringConstraints(max_length=64)]
    status: CheckStatus
    observed: float | Annotated[str, StringConstraints(max_length=80)] | None = None
    limit: float | Annotated[str, StringConstraints(max_length=80)] | None = None
    unit: Annotated[str, StringConstraints(max_length=16)] | None = None
    at: float | None = None
    reason: Annotated[str, StringConstraints(max_length=160)] = ""


class ReadinessSummary(Wire):
    status: Verdict
    reason: Reason = ""
    ready_probe_sha256: Sha256 | None = None
    evidence_sha256: Sha256 | None = None
    platform: Annotated[str, StringConstraints(max_length=64)] | None = None
    """As in the document: trees of one release differ between platforms."""
    concerns: Annotated[list[Concern], Field(max_length=MAX_CONCERNS)] = []
    """Checks that do not pass: a warning keeps a node green, and somebody must see to it all the same."""
    checks: Annotated[list[SaidCheck], Field(max_length=MAX_CHECKS)] = []
    """All of them, for people; made anew once a minute, and when one has another status."""


class WayBack(Wire):
    """Whether an upgrade can be undone: answered before its outage begins."""

    possible: bool
    reasons: Annotated[list[Reason], Field(max_length=16)] = []
    """Why it is not; where it is, what a rollback means."""
    restores_state: bool = True
    """The new version changes the form of the state: what it writes is set aside by a rollback."""
    snapshot_bytes: int = 0
    free_bytes: int = 0
    snapshot_s: float = 0
    """How long the copy took while the gateway served; less is copied in the outage."""
    rollback_s: float | None = None
    """Estimate of the outage of a rollback: stop, move the copy into place, start."""


class Loss(Wire):
    """What a rollback takes away: kept beside the state, and not in use any more."""

    files: int = 0
    named: Annotated[list[str], Field(max_length=20)] = []
    turns: int | None = None
    """Agent turns that began since the switch; None when the gateway could not be asked."""


class RollbackPlan(Wire):
    """What `rollcall-agent rollback` would do now. `outage_s` is an estimate."""

    possible: bool
    reason: Reason = ""
    upgrade: str | None = None
    running: VersionWord | None = None
    previous: VersionWord | None = None
    lost: Loss = Loss()
    outage_s: float | None = None


class UpgradeReport(Wire):
    """The last upgrade this node began: still moving while `outcome` is None."""

    order: Order
    release: Sha256
    phase: Annotated[str, StringConstraints(max_length=32)]
    detail: Reason = ""
    outcome: str | None = None
    reason: Reason = ""
    ordered: bool = False
    """The fleet's operators took it back: that it was rolled back is no failure."""
    version_before: VersionWord | None = None
    version_after: VersionWord | None = None
    began: float
    ended: float | None = None
    outage_s: float | None = None
    spent_s: dict[str, float] = {}
    attested_by: list[NodeName] = []
    way_back: WayBack | None = None
    lost: Loss | None = None


class Broadcast(Wire):
    """A message of this node to all its peers, and how long each took to sign that it holds it."""

    key: str
    type: str
    reason: Reason = ""
    issued: float
    acked_ms: dict[NodeName, float] = {}


class Standing(Wire):
    """What a rollback from the next upgrade would lead to and need, looked at now and then."""

    release: Sha256
    whole: bool
    schema_versions: Annotated[str, StringConstraints(max_length=64)]
    """`state/agent`, of the release that runs."""
    state_bytes: int
    free_bytes: int
    same_disk: bool
    at: float


AGENT_CHECK = "agent-check"
"""`Asker.via` of a load balancer that asks for the node's weight."""


class Asker(Wire):
    """Somebody who asks this node again and again how it is: a load balancer. `told` is the last answer."""

    address: Annotated[str, StringConstraints(max_length=64)]
    via: Annotated[str, StringConstraints(max_length=32)]
    asked: float
    told: Reason = ""


class Trend(Wire):
    """The last hour of one series, oldest first, in equal parts; None where nothing was read."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]
    unit: Annotated[str, StringConstraints(max_length=16)] = ""
    values: Annotated[list[float | None], Field(max_length=60)] = []


class Absence(Wire):
    """A peer that is not there. `left`: it said that it stops; else it is silent: it answers neither this node nor
    others that were asked."""

    since: float
    left: bool = False
    reason: Reason = ""


class NodeReport(Wire):
    node: NodeName
    agent_version: VersionWord
    protocol: ProtocolRange | None = None
    """What the agent speaks, for who plans an upgrade; each exchange says it anew in its header."""
    release: Sha256 | None = None
    version_on_disk: VersionWord | None = None
    version_running: VersionWord | None = None
    readiness: ReadinessSummary
    upgrade: UpgradeReport | None = None
    waiting: Reason = ""
    withdrawn: Annotated[list[Order], Field(max_length=MAX_WITHDRAWN)] | None = None
    """Orders of which it has heard that they were taken back: it does not begin them any more. None from an agent
    that knows nothing of this."""
    frozen_by: list[str] = []
    freezes: Annotated[list[Freeze], Field(max_length=MAX_FREEZES)] = []
    """Peers' reds again, and a freeze by hand: with what lifts each."""
    open_reds: list[str] = []
    broadcasts: Annotated[list[Broadcast], Field(max_length=64)] = []
    peers: dict[NodeName, str] = {}
    """For each peer how it was found: `mdns`, `static`, `coordinator`, `peer`, `remembered`, `accepted` where it
    dialled this node, or ``""`` while it is not reached."""
    addresses: Addresses = []
    """Where this node says that peers can reach it."""
    away: Annotated[dict[NodeName, Absence], Field(max_length=64)] = {}
    """Peers that are silent, or have left. Silent is never red: it freezes nothing."""
    urls: dict[str, str] = {}
    alerts: Annotated[list[Reason], Field(max_length=16)] = []
    """What people must see to, and what neither freezes nor halts anything."""
    dropped: dict[str, int] = {}
    """Peer messages that were not accepted since the agent started, by reason."""
    roster_epoch: int = 0
    certificate_expires: float | None = None
    blocked: Annotated[list[Sha256], Field(max_length=MAX_BLOCKED)] = []
    """Releases on its blocklist, the newest where there are more: it does not begin an upgrade to one of them."""
    standing: Standing | None = None
    balancers: Annotated[list[Asker], Field(max_length=64)] = []
    """Who asked in the last minute whether to send traffic here."""
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """The share of traffic that it takes, in percent."""
    weight_wanted: Share | None = None
    """What the coordinator wants it to be, as far as the node has heard."""
    weight_waits: Reason = ""
    """Why it is not that yet."""
    health: NodeHealth | None = None
    """None from an agent that does not measure it."""
    cohort: Cohort | None = None
    """Of a worker."""
    trends: Annotated[list[Trend], Field(max_length=8)] = []
    """For people. They change by themselves: they are no reason to tell anybody."""


class Target(Wire):
    """The pending upgrade: which release this node should run, who said so, when, in which rollout.
    The order names a folder on the node, so its form is fixed: nothing in it can be a path."""

    order: Order
    rollout: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    release: Sha256
    set_by: Annotated[str, StringConstraints(max_length=64)]
    set_at: float
    soak_s: Annotated[float, Field(ge=0, le=7 * 86400)]
    share: Share = FULL
    """Percent of traffic with which the node begins on the release, where somebody asks it for its weight."""
    undoes: Order | None = None
    """The order to go back from: `release` is then what the node ran before it."""
    epoch: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0
    """Of its rollout; each has a greater one than all before it, also after the coordinator's database was put back
    from a copy. 0 from a coordinator that does not count them."""


class SyncRequest(Wire):
    report: NodeReport
    holds: Order | None = None
    """The order of the target that this agent has; a different one is news, told at once."""
    wait_s: Annotated[float, Field(ge=0, le=60)] = 0
    roster: tuple[int, int] = (0, 0)
    """Fleet document's version and epoch of the roster that this agent has."""
    repository: int = 0
    """The last `SyncAnswer.repository` that it heard."""
    messages: Annotated[list[str], Field(max_length=64)] = []
    """Signed envelopes that the coordinator may not have yet."""
    addresses: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The last `NodeAddresses.tag` that it heard, empty for none; None from an agent that wants no addresses."""
    orders: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The last `NodeOrders.tag` that it heard, empty for none; None from an agent that knows no orders."""
    open_reds: Annotated[list[RedKey], Field(max_length=MAX_ASKED_REDS)] = []
    """For which the agent wants to know of operators' clears."""
    clears: Annotated[list[str], Field(max_length=MAX_CLEARS)] = []
    """Operators' clears that the coordinator may not have yet."""
    traffic: Annotated[str, StringConstraints(max_length=64)] | None = None
    """The last `TrafficWord.tag` that it heard, empty for none; None from an agent that does not know of shares."""
    cohort: CohortIntent | None = None
    """The last `SyncAnswer.cohort` that it heard."""


class NodeAddresses(Wire):
    """Where the nodes say that they are. `tag` names this very list."""

    tag: Annotated[str, StringConstraints(max_length=64)]
    nodes: Annotated[dict[NodeName, Addresses], Field(max_length=MAX_LISTED)] = {}


class SyncAnswer(Wire):
    generation: int
    target: Target | None = None
    withdrawn: Annotated[list[Order], Field(max_length=MAX_WITHDRAWN)] = []
    """Orders of this node that were taken back: not begun any more, and undone where they have begun."""
    roster: str | None = None
    repository: int = 0
    """Goes up with everything that operators publish; news for an agent that knows a lower one."""
    stored: list[Sha256] = []
    """Hashes of the messages that are now durable at the coordinator."""
    addresses: NodeAddresses | None = None
    """Only when they are others than the agent has heard."""
    clears: Annotated[list[str], Field(max_length=MAX_CLEARS)] = []
    """Operators' clears of the reds that the agent holds open."""
    traffic: TrafficWord | None = None
    """The share of traffic that the node should take."""
    orders: NodeOrders | None = None
    """Only when they are others than the agent has heard."""
    cohort: CohortIntent | None = None
    """Whether this worker's build takes new work; None for what is no worker."""
