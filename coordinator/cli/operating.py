"""`rollcall operator-metrics`: the whole fleet in numbers."""

from __future__ import annotations

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.saying import moment
from shared.operating import OperatorMetrics
from shared.terminal import print_json, print_table


def operator_metrics(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """The whole fleet in numbers: nodes, workers, backlog, rollouts. The same is at /metrics for Prometheus."""
    answer = Client(config).get("/v1/operator-metrics")
    if as_json:
        print_json(answer)
        return
    print_table(["WHAT", "VALUE"], rows_of(OperatorMetrics.from_value(answer)), empty="nothing")


def rows_of(numbers: OperatorMetrics) -> list[list[str]]:
    about, nodes = numbers.coordinator, numbers.nodes
    workers, backlog, rollouts = numbers.workers, numbers.backlog, numbers.rollouts
    up = max(0.0, numbers.at - about.started)
    lowest = "-" if nodes.health_lowest is None else f"{nodes.health_lowest}, {nodes.health_mean:g}"
    return [
        ["at", moment(numbers.at)],
        ["coordinator", f"{about.version}, schema {about.schema_revision}, up {up:.0f} s"],
        ["ready", "yes" if about.ready else "no; see /v1/ready"],
        ["nodes", f"{nodes.total}: {_counts(nodes.by_status)}"],
        ["classes", _counts(nodes.by_class)],
        ["readiness", _counts(nodes.by_readiness)],
        ["OpenClaw", _counts(nodes.by_openclaw)],
        ["agents", _counts(nodes.by_agent)],
        ["frozen, pending", f"{nodes.frozen}, {nodes.pending}"],
        ["health: lowest, mean", lowest],
        [
            "workers",
            f"{workers.fleet}: {workers.active} active, {workers.draining} draining,"
            f" {workers.silent} silent",
        ],
        [
            "backlog",
            f"{backlog.in_flight} in flight, {backlog.waiting} waiting, {backlog.blocked} blocked"
            f" (oldest {backlog.max_blocked_age_s:.0f} s)",
        ],
        ["last rollout", f"{rollouts.id} to {rollouts.release}: {rollouts.state}"]
        if rollouts.id
        else ["last rollout", "none"],
        ["its nodes", _counts(rollouts.nodes)],
        ["rollouts", _counts(rollouts.by_state)],
        ["open reds", str(numbers.open_reds)],
    ]


def _counts(counts: dict[str, int]) -> str:
    """Without what nobody has."""
    return (
        ", ".join(f"{count} {word or 'unknown'}" for word, count in counts.items() if count) or "-"
    )
