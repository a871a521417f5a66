"""Cohorts of workers: counted from what the nodes reported, and whether one may be drained. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.health import HEARD_WITHIN_S
from coordinator.store.cohorts import Drain
from shared.cohorts import CohortStatus, CohortView
from shared.nodes import Cohort, CohortState

Key = tuple[str, str]


@dataclass(frozen=True)
class Worker:
    """A node's last word on its cohort, and when it was heard."""

    name: str
    cohort: Cohort
    heard: float

    @property
    def key(self) -> Key:
        return self.cohort.queue, self.cohort.build_id

    def is_live(self, now: float) -> bool:
        return now - self.heard <= HEARD_WITHIN_S


def count_cohorts(
    workers: Iterable[Worker], drains: Mapping[Key, Drain], now: float
) -> list[CohortView]:
    """By queue and build, also a build that is drained and that no node has any more."""
    members: dict[Key, list[Worker]] = {key: [] for key in drains}
    for worker in workers:
        members.setdefault(worker.key, []).append(worker)
    return [_count(key, members[key], drains.get(key), now) for key in sorted(members)]


def _count(key: Key, members: list[Worker], drain: Drain | None, now: float) -> CohortView:
    live = [worker.cohort for worker in members if worker.is_live(now)]
    silent = [worker.cohort for worker in members if not worker.is_live(now)]
    states = [cohort.state for cohort in live]
    counted = {
        "active_workers": states.count(CohortState.ACTIVE),
        "draining_workers": states.count(CohortState.DRAINING),
        "silent_workers": len(silent),
        "in_flight": sum(each.active or 0 for each in live),
        "waiting": sum(each.waiting or 0 for each in live),
    }
    blocked = [] if live else silent
    oldest = min((each.oldest for each in blocked if each.oldest is not None), default=now)
    return CohortView(
        queue=key[0],
        build_id=key[1],
        status=_status(states, silent),
        drain_intent=drain is not None,
        drained_by=None if drain is None else drain.who,
        drained_at=None if drain is None else drain.at,
        nodes=sorted(worker.name for worker in members),
        blocked=sum((each.active or 0) + (each.waiting or 0) for each in blocked),
        blocked_age_s=round(max(0.0, now - oldest), 1),
        notes=[f"{each.name}: {each.cohort.reason}" for each in members if each.cohort.reason],
        **counted,
    )


def _status(states: list[CohortState], silent: list[Cohort]) -> CohortStatus:
    if CohortState.ACTIVE in states:
        return CohortStatus.ACTIVE
    if CohortState.DRAINING in states:
        return CohortStatus.DRAINING
    return CohortStatus.SILENT if silent and not states else CohortStatus.DRAINED


def drain_leaves(cohorts: Iterable[CohortView], queue: str, build_id: str) -> str:
    """What would be wrong after this drain; empty when another build of the queue takes its work on."""
    others = [
        each.build_id
        for each in cohorts
        if each.queue == queue
        and each.build_id != build_id
        and each.active_workers
        and not each.drain_intent
    ]
    if others:
        return ""
    return f"no live worker of another build would take new work of {queue}"


def blocked_work(cohorts: Iterable[CohortView]) -> list[str]:
    """In words, for each build whose work no live worker has. Under `validation = fail` this shuts gates."""
    return [
        f"{each.blocked} tasks of {each.queue} wait for build {each.build_id}, which no live worker has"
        for each in cohorts
        if each.blocked
    ]
