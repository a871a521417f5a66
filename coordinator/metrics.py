"""The fleet in numbers: one snapshot for operators, and the same as Prometheus reads it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shared.cohorts import CohortView
from shared.exposition import Kind, Process, Value, family, gauge, process_families
from shared.messages import Verdict
from shared.nodes import NodeStatus
from shared.operating import (
    BacklogNumbers,
    NodeNumbers,
    OperatorMetrics,
    RolloutNumbers,
    WorkerNumbers,
)
from shared.rollout import NodeState, NodeView, Rollout, RolloutState
from shared.roster import NodeClass


def count_nodes(views: Sequence[NodeView]) -> NodeNumbers:
    scores = [view.health_score for view in views if view.health_score is not None]
    return NodeNumbers(
        total=len(views),
        by_status=_counted((view.node_status for view in views), NodeStatus),
        by_class=_counted((view.class_ for view in views), NodeClass),
        by_readiness=_counted(map(_readiness, views), Verdict),
        by_openclaw=_counted(view.version_running or "" for view in views),
        by_agent=_counted(view.agent_version for view in views),
        frozen=sum(bool(view.freezes) for view in views),
        pending=sum(view.pending is not None for view in views),
        health_lowest=min(scores, default=None),
        health_mean=round(sum(scores) / len(scores), 1) if scores else None,
    )


def _readiness(view: NodeView) -> Verdict:
    """Of a node that is not heard of nobody knows."""
    return Verdict.UNKNOWN if view.node_status is NodeStatus.OFFLINE else view.status


def _counted(words: Iterable[str], known: Iterable[str] = ()) -> dict[str, int]:
    """`known` words are named also where nobody has them."""
    found = Counter(str(word) for word in words)
    return {word: found[word] for word in [*map(str, known), *sorted(found - Counter(known))]}


def count_workers(cohorts: list[CohortView]) -> WorkerNumbers:
    return WorkerNumbers(
        fleet=sum(len(each.nodes) for each in cohorts),
        active=sum(each.active_workers for each in cohorts),
        draining=sum(each.draining_workers for each in cohorts),
        silent=sum(each.silent_workers for each in cohorts),
        cohorts=cohorts,
    )


def count_backlog(cohorts: list[CohortView]) -> BacklogNumbers:
    return BacklogNumbers(
        in_flight=sum(each.in_flight for each in cohorts),
        waiting=sum(each.waiting for each in cohorts),
        blocked=sum(each.blocked for each in cohorts),
        max_blocked_age_s=max((each.blocked_age_s for each in cohorts if each.blocked), default=0),
    )


def count_rollouts(rollouts: Sequence[Rollout]) -> RolloutNumbers:
    """Newest first."""
    by_state = _counted((each.state for each in rollouts), RolloutState)
    if not rollouts:
        return RolloutNumbers(by_state=by_state)
    last = rollouts[0]
    return RolloutNumbers(
        id=last.id,
        release=last.label,
        state=last.state,
        reason=last.reason,
        nodes=_counted((node.state for node in last.nodes), NodeState),
        by_state=by_state,
    )


def render(numbers: OperatorMetrics, views: Sequence[NodeView], process: Process) -> str:
    families = (
        *_coordinator(numbers),
        *_nodes(numbers.nodes),
        *_each_node(views),
        *_work(numbers),
        *_rollouts(numbers.rollouts),
        *process_families(process, "the coordinator"),
    )
    return "".join(families)


def _by(label: str, counts: Mapping[str, int]) -> list[Value]:
    return [({label: word}, count) for word, count in counts.items()]


def _coordinator(numbers: OperatorMetrics) -> Iterator[str]:
    about = numbers.coordinator
    labels = {"version": about.version, "schema": about.schema_revision}
    yield family("rollcall_coordinator_build_info", Kind.GAUGE, "The coordinator.", [(labels, 1.0)])
    yield gauge(
        "rollcall_coordinator_ready",
        "1 while the coordinator has all that it needs.",
        about.ready,
    )
    yield gauge("rollcall_fleet_open_reds", "Reds that have no end yet.", numbers.open_reds)


def _nodes(nodes: NodeNumbers) -> Iterator[str]:
    for name, what, label, counts in (
        ("status", "Nodes by status.", "status", nodes.by_status),
        ("class", "Nodes by class.", "class", nodes.by_class),
        ("readiness", "Nodes by readiness.", "readiness", nodes.by_readiness),
        ("openclaw", "Nodes by the OpenClaw that runs.", "version", nodes.by_openclaw),
        ("agent", "Nodes by the version of their agent.", "version", nodes.by_agent),
    ):
        yield family(f"rollcall_fleet_nodes_by_{name}", Kind.GAUGE, what, _by(label, counts))
    yield gauge("rollcall_fleet_nodes", "Nodes that have joined.", nodes.total)
    yield gauge("rollcall_fleet_frozen_nodes", "Nodes that start no upgrade.", nodes.frozen)
    yield gauge(
        "rollcall_fleet_pending_nodes",
        "Nodes that are to run another release than they do.",
        nodes.pending,
    )


def _each_node(views: Sequence[NodeView]) -> Iterator[str]:
    yield family(
        "rollcall_node_health_score",
        Kind.GAUGE,
        "0 to 100; absent while nothing is known.",
        [
            ({"node": view.name, "class": view.class_, "site": view.site}, view.health_score)
            for view in views
            if view.health_score is not None
        ],
    )
    yield family(
        "rollcall_node_heard_timestamp_seconds",
        Kind.GAUGE,
        "When each node last reported.",
        [({"node": view.name}, view.heard) for view in views if view.heard is not None],
    )


def _work(numbers: OperatorMetrics) -> Iterator[str]:
    workers = (("active", "active_workers"), ("draining", "draining_workers"))
    yield family(
        "rollcall_cohort_workers",
        Kind.GAUGE,
        "Workers of each build.",
        [
            ({**_cohort(each), "state": state}, getattr(each, field))
            for each in numbers.workers.cohorts
            for state, field in (*workers, ("silent", "silent_workers"))
        ],
    )
    yield family(
        "rollcall_cohort_tasks",
        Kind.GAUGE,
        "Tasks of each build; blocked ones are of a build that no live worker has.",
        [
            ({**_cohort(each), "state": state}, getattr(each, state))
            for each in numbers.workers.cohorts
            for state in ("in_flight", "waiting", "blocked")
        ],
    )
    yield gauge(
        "rollcall_blocked_tasks_age_seconds",
        "How old the oldest of the blocked tasks is.",
        numbers.backlog.max_blocked_age_s,
    )


def _cohort(cohort: CohortView) -> dict[str, str]:
    return {"queue": cohort.queue, "build": cohort.build_id}


def _rollouts(rollouts: RolloutNumbers) -> Iterator[str]:
    yield family(
        "rollcall_rollouts",
        Kind.GAUGE,
        "The latest rollouts by state.",
        _by("state", rollouts.by_state),
    )
    yield family(
        "rollcall_rollout_nodes",
        Kind.GAUGE,
        "Nodes of the last rollout by state.",
        _by("state", rollouts.nodes),
    )
