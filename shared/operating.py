"""What the coordinator says of itself and of the whole fleet at once, for operators and their monitoring."""

from __future__ import annotations

from shared.cohorts import CohortView
from shared.wire import Reason, Wire


class ReadyCheck(Wire):
    name: str
    ok: bool
    reason: Reason = ""
    """Why not; or, where it is well, what is worth knowing."""


class Ready(Wire):
    ready: bool
    checks: list[ReadyCheck]


class CoordinatorNumbers(Wire):
    version: str
    schema_revision: str
    started: float
    ready: bool


class NodeNumbers(Wire):
    """Each dictionary counts nodes by one of their properties; an empty word is what no node has said."""

    total: int
    by_status: dict[str, int]
    by_class: dict[str, int]
    by_readiness: dict[str, int]
    by_openclaw: dict[str, int]
    by_agent: dict[str, int]
    frozen: int
    pending: int
    """Nodes that are to run another release than they do."""
    health_lowest: int | None
    health_mean: float | None


class WorkerNumbers(Wire):
    fleet: int
    """All workers, also those that are not heard of."""
    active: int
    draining: int
    silent: int
    cohorts: list[CohortView]


class BacklogNumbers(Wire):
    """Tasks that the workers hold. `blocked` ones are of a build that no live worker has; they are in no other
    count."""

    in_flight: int
    waiting: int
    blocked: int
    max_blocked_age_s: float


class RolloutNumbers(Wire):
    """Of the last rollout, and of all that are kept."""

    id: str | None = None
    release: str = ""
    state: str = ""
    reason: Reason = ""
    nodes: dict[str, int] = {}
    by_state: dict[str, int] = {}


class OperatorMetrics(Wire):
    at: float
    coordinator: CoordinatorNumbers
    nodes: NodeNumbers
    workers: WorkerNumbers
    backlog: BacklogNumbers
    rollouts: RolloutNumbers
    open_reds: int
