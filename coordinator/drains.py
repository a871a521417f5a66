"""Which builds are drained, and who works for which: on disk, and in memory for every heartbeat that asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from coordinator.cohorts import Key, Worker, count_cohorts, drain_leaves
from coordinator.store.cohorts import CohortQueries, Drain
from coordinator.store.nodes import StoredNode
from coordinator.store.settling import answered_by
from shared.clock import Clock
from shared.cohorts import CohortAnswer, CohortView
from shared.errors import ConflictError, NotFoundError
from shared.fleetsettings import FleetSettings
from shared.nodes import Cohort, CohortIntent


class Drains:
    """`load` before anything else. `changed` is called after each write. `live` names the nodes of the roster:
    the work of one that was revoked is nobody's to finish."""

    def __init__(
        self,
        queries: CohortQueries,
        settings: Callable[[], Awaitable[FleetSettings]],
        clock: Clock,
        changed: Callable[[], None],
        live: Callable[[], Iterable[str]],
    ) -> None:
        self._queries, self._settings, self._live = queries, settings, live
        self._clock, self._changed = clock, changed
        self._drained: dict[Key, Drain] = {}
        self._workers: dict[str, Worker] = {}

    async def load(self, nodes: Iterable[StoredNode]) -> None:
        await self._read()
        for node in nodes:
            report = node.parsed()
            if report is not None and node.heard is not None:
                self._note(node.name, report.cohort, node.heard)

    async def _read(self) -> None:
        drains = await self._queries.drains()
        self._drained = {(drain.queue, drain.build_id): drain for drain in drains}

    def hear(self, node: str, cohort: Cohort | None) -> None:
        self._note(node, cohort, self._clock.now())

    def _note(self, node: str, cohort: Cohort | None, heard: float) -> None:
        if cohort is None:
            self._workers.pop(node, None)
        else:
            self._workers[node] = Worker(node, cohort, heard)

    def intent_for(self, cohort: Cohort | None) -> CohortIntent | None:
        """What this worker is to hear; None for what is no worker."""
        if cohort is None:
            return None
        drain = (cohort.queue, cohort.build_id) in self._drained
        return CohortIntent(queue=cohort.queue, build_id=cohort.build_id, drain=drain)

    def count(self) -> list[CohortView]:
        live = set(self._live())
        workers = [worker for name, worker in self._workers.items() if name in live]
        return count_cohorts(workers, self._drained, self._clock.now())

    async def drain(self, key: Key, who: str, *, dry_run: bool) -> CohortAnswer:
        """It may be said again: the first word stays.

        Raises NotFoundError for a build that no node has reported, ConflictError where the setting `validation` is
        `fail` and no other build of the queue would take new work.
        """
        cohorts = self.count()
        found = _find(cohorts, key)
        problem = drain_leaves(cohorts, *key)
        if problem and (await self._settings()).validation == "fail":
            raise ConflictError(
                problem,
                remedy="bring workers of another build up first, or: rollcall config set validation warn",
            )
        warnings = [problem] if problem else []
        if dry_run:
            return CohortAnswer(cohort=found, warnings=warnings)
        drain = self._drained.get(key) or Drain(*key, at=self._clock.now(), who=who)
        drained = {"drain_intent": True, "drained_by": drain.who, "drained_at": drain.at}
        answer = CohortAnswer(cohort=found.model_copy(update=drained), warnings=warnings)
        answered_by(answer)
        await self._queries.drain(drain)
        await self._read()
        self._changed()
        return answer

    async def resume(self, key: Key, *, dry_run: bool) -> CohortAnswer:
        """It may be said again. Raises NotFoundError for a build that no node has reported."""
        found = _find(self.count(), key)
        if dry_run:
            return CohortAnswer(cohort=found)
        taken = {"drain_intent": False, "drained_by": None, "drained_at": None}
        answer = CohortAnswer(cohort=found.model_copy(update=taken))
        answered_by(answer)
        await self._queries.resume(*key)
        await self._read()
        self._changed()
        return answer


def _find(cohorts: list[CohortView], key: Key) -> CohortView:
    found = [each for each in cohorts if (each.queue, each.build_id) == key]
    if not found:
        known = ", ".join(f"{each.queue} {each.build_id}" for each in cohorts) or "none"
        raise NotFoundError(
            f"no worker of queue {key[0]!r} has build {key[1]!r}", remedy=f"there are: {known}"
        )
    return found[0]
