"""Work for one node: who asked for it, who has it, until when, and how it ended (seed 002's life of a task).

An upgrade in a rollout is an order whose state lives in the rollout; all other kinds are orders of their own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.wire import NodeName, Order, Reason, Sha256, Wire

MAX_RESULT_CHARS = 256 << 10
MAX_OPEN = 32
"""Open orders of one node; more of them are refused."""
MAX_NOTICES = 16
LONGEST_S = 30 * 86400.0


class OrderKind(StrEnum):
    UPGRADE = "upgrade"
    """Only a rollout makes these."""
    RESTART = "restart"
    ROLLBACK = "rollback"
    COLLECT_LOGS = "collect_logs"
    INSTALL_CAPABILITY = "install_capability"
    REMOVE_CAPABILITY = "remove_capability"


ASKED = (OrderKind.RESTART, OrderKind.ROLLBACK, OrderKind.COLLECT_LOGS)
"""What operators ask a node for directly."""


class OrderState(StrEnum):
    PENDING = "pending"
    CLAIMED = "claimed"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OPEN = frozenset({OrderState.PENDING, OrderState.CLAIMED, OrderState.IN_PROGRESS})


class BreachKind(StrEnum):
    NOT_CLAIMED = "not_claimed"
    ETA_PASSED = "eta_passed"
    NO_UPDATE = "no_update"
    NOT_COMPLETED = "not_completed"


class Breach(Wire):
    """A promise that was not kept. `told` is when its one message went out, None while none did."""

    kind: BreachKind
    reason: Reason
    at: float
    told: float | None = None


class OrderTerms(Wire):
    """What goes with a verb. Nothing here is a command, a path or an address."""

    drain: bool = True
    """Of a restart: let the load balancers know and the work in hand finish first."""
    urgent: bool = False
    """Of a restart or rollback: whoever else is out of service."""
    subject: Sha256 | None = None
    """The signed thing that it is about: a release, or a capability's bundle."""
    label: Annotated[str, StringConstraints(max_length=100)] = ""
    """Its name, for people."""
    reason: Reason = ""


class OrderView(Wire):
    """`since` is when it came into its state, `eta` when its node promised to be done, `expires` when it ends by
    itself. Times are seconds since the epoch, by the coordinator's clock."""

    id: Order
    node: NodeName
    kind: OrderKind
    state: OrderState = OrderState.PENDING
    terms: OrderTerms = OrderTerms()
    reason: Reason = ""
    """Why it ended as it did; before that what its node said last."""
    created: float
    created_by: str
    since: float
    expires: float | None = None
    claimed: float | None = None
    eta: float | None = None
    updated: float | None = None
    """When its node was last heard about it."""
    ended: float | None = None
    revision: int = 1
    breaches: list[Breach] = []


class OrderEvent(Wire):
    at: float
    who: str
    event: str
    state: OrderState
    reason: Reason = ""


class OrderDetail(Wire):
    """`result` is what its node handed in: for logs a `LogBundle` as JSON."""

    order: OrderView
    events: list[OrderEvent] = []
    result: str = ""


class OrderList(Wire):
    """The newest first. `more` says that there are others which fit."""

    orders: list[OrderView]
    more: bool = False


class OrderRequest(Wire):
    """`expires_s` is how long it may stay open, whoever has it by then."""

    kind: OrderKind
    node: NodeName
    terms: OrderTerms = OrderTerms()
    expires_s: Annotated[float, Field(ge=60, le=LONGEST_S)] = 86400.0
    dry_run: bool = False


class CancelRequest(Wire):
    reason: Reason = ""


class ClaimRequest(Wire):
    """`eta_s`: in how many seconds its node means to be done."""

    eta_s: Annotated[float, Field(gt=0, le=LONGEST_S)]


class UpdateRequest(Wire):
    """`eta_s` replaces what was promised; None leaves it."""

    reason: Reason = ""
    eta_s: Annotated[float, Field(gt=0, le=LONGEST_S)] | None = None


class CompleteRequest(Wire):
    """`failed` with the reason, or done with a result."""

    failed: bool = False
    reason: Reason = ""
    result: Annotated[str, StringConstraints(max_length=MAX_RESULT_CHARS)] = ""


class OpenOrder(Wire):
    """As its node is told. `kind` is an OrderKind of the coordinator's version, which may be newer."""

    id: Order
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,31}$")]
    terms: OrderTerms = OrderTerms()
    created_by: Annotated[str, StringConstraints(max_length=64)] = ""


class Notice(Wire):
    """What a node is told about an order that is late: its own, or one that it is to know of."""

    order: Order
    kind: str
    text: Reason
    at: float


class NodeOrders(Wire):
    """`tag` names this very list; a node that has it is told nothing."""

    tag: Annotated[str, StringConstraints(max_length=64)]
    orders: Annotated[list[OpenOrder], Field(max_length=MAX_OPEN)] = []
    notices: Annotated[list[Notice], Field(max_length=MAX_NOTICES)] = []


class FoundBreach(Wire):
    """`new` is False for one that an earlier sweep has noted; `told` says who got a message by this one."""

    order: Order
    node: NodeName
    kind: BreachKind
    reason: Reason
    new: bool
    told: list[NodeName] = []


class SweepRequest(Wire):
    dry_run: bool = False
    """Look only: note nothing, tell nobody."""
    record_only: bool | None = None
    """Note breaches, tell nobody; None is as the fleet's settings say."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """How many open orders are looked at, the oldest first."""


class SweepReport(Wire):
    """`breaches` counts what holds now, `recorded` what this sweep noted first, `messages` what it sent: one for
    each breach, to the order's node and those who are to know, at most `max_messages`."""

    at: float
    dry_run: bool
    record_only: bool
    max_messages: int
    scanned: int
    breaches: int
    recorded: int
    messages: int
    found: list[FoundBreach] = []


class LogFile(Wire):
    path: Annotated[str, StringConstraints(max_length=1000)]
    lines: Annotated[list[str], Field(max_length=2000)] = []
    why: Reason = ""
    """Why there are none."""


class LogForm(Wire):
    """One kind of error: `new` with the release that runs."""

    template: str
    example: str
    count: int
    last: float
    new: bool


class LogBundle(Wire):
    """The end of a node's logs, without what looks like a secret. `left_out` counts lines that did not fit."""

    node: NodeName
    at: float
    release: Sha256 | None = None
    new_errors: int = 0
    forms: Annotated[list[LogForm], Field(max_length=300)] = []
    files: Annotated[list[LogFile], Field(max_length=16)] = []
    left_out: int = 0
