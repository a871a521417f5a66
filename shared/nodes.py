"""What is known of a node besides its last report: what operators say of it, how healthy it is, its upgrades, and
the cohort of workers that it belongs to (seeds 003 and 004)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.fleet import SiteName
from shared.roster import NodeClass, Role
from shared.wire import NodeName, Order, Reason, Sha256, Wire

LABEL_KEY = r"^[a-z][a-z0-9._-]{0,31}$"
WORD = r"^[A-Za-z0-9]([A-Za-z0-9._:+-]{0,62}[A-Za-z0-9])?$"
MAX_LABELS = 32

LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(max_length=64, pattern=r"^[ -~]*$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]
Said = Annotated[str, StringConstraints(max_length=64, pattern=r"^[ -~]*$")]
"""A few words of an operator's, in printable ASCII."""
Word = Annotated[str, StringConstraints(pattern=WORD)]
"""The name of a queue or a build, such as `orders` or `orders-2026-04-21`."""
Percent = Annotated[float, Field(ge=0, le=100)]


class NodeStatus(StrEnum):
    PROVISIONING = "provisioning"
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    UPGRADING = "upgrading"
    ERROR = "error"


class NodeHealth(Wire):
    """What a node has measured of itself in the last day, planned outages left out. None is what it could not
    measure, or what nobody asked of it."""

    window_s: Annotated[float, Field(ge=0)] = 0
    """How much of the day the numbers cover."""
    uptime: Percent | None = None
    """Percent of looks at which the gateway served; of an hour's looks at least, those to come taken as good."""
    ready: Percent | None = None
    """Percent of looks at which readiness was green."""
    error_rate: Percent | None = None
    """Percent of the tasks that ended in the last 15 minutes and did not succeed."""
    start_p95_ms: Annotated[float, Field(ge=0)] | None = None
    """How long one task in 20 waits for its start: the mean of the last 15 minutes."""
    crashes: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How often the gateway was found to be another process that no upgrade had started."""


class CohortState(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"
    """It takes no new work, and has some in hand, or cannot say whether it has."""
    DRAINED = "drained"


class Cohort(Wire):
    """A worker's word on itself. `active` and `waiting` count tasks; None while the gateway does not say."""

    queue: Word
    build_id: Word
    state: CohortState = CohortState.ACTIVE
    since: float = 0
    active: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    waiting: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    oldest: float | None = None
    """When the task was created that waits longest."""
    reason: Reason = ""
    """Why the state is not yet the wanted one."""


class CohortIntent(Wire):
    """The coordinator's word to one worker: whether the build that it runs takes new work."""

    queue: Word
    build_id: Word
    drain: bool


class PendingUpgrade(Wire):
    """What a node is to run and does not run yet."""

    order: str
    release: Sha256
    label: str
    strategy: str
    set_by: str
    set_at: float


class UpgradeStatus(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class NodeUpgrade(Wire):
    """One that has ended. `outcome` is the node's own word; `dropped` means that it ended before its outage."""

    node: NodeName
    order: Order
    release: Sha256
    label: str = ""
    strategy: str = ""
    from_core: str | None = None
    to_core: str | None = None
    """What the release has; a node that was rolled back runs `from_core` again."""
    from_agent: str = ""
    to_agent: str = ""
    status: UpgradeStatus
    outcome: str
    began: float
    ended: float | None = None
    duration_s: float | None = None
    outage_s: float | None = None
    error: Reason = ""
    by: str = ""


class NodeAttributes(Wire):
    """What operators say of a node."""

    role: Role
    class_: NodeClass = NodeClass.GATEWAY
    site: SiteName = ""
    provider: Said = ""
    region: Said = ""
    address: Said = ""
    labels: Labels = {}


class AttributesRequest(Wire):
    """What is absent stays as it is. A label whose value is null is taken off."""

    role: Role | None = None
    class_: NodeClass | None = None
    site: SiteName | None = None
    provider: Said | None = None
    region: Said | None = None
    address: Said | None = None
    labels: Annotated[dict[LabelKey, LabelValue | None], Field(max_length=MAX_LABELS)] = {}
    dry_run: bool = False


class AttributesChange(Wire):
    """`changed` names what is another value after than before."""

    name: NodeName
    before: NodeAttributes
    after: NodeAttributes
    changed: list[str]


class Revoked(Wire):
    """`epoch` is the roster's: a node that has it, or a later one, refuses the revoked one."""

    name: NodeName
    epoch: int
    again: bool
    """It had been revoked before."""
