"""Puts together what this node does at the coordinator's word besides upgrades: its orders, its share of traffic, and
whether it takes new work; with the vitals that all of that is judged by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from agent.capabilities.performing import Bench, InstallCapability, RemoveCapability
from agent.capabilities.shelf import Shelf
from agent.changes import Changes
from agent.company import Company
from agent.conductor import Conductor
from agent.loadbalancing import LoadBalancing
from agent.membership import Membership
from agent.observing import Observing
from agent.ordering import make_ordering
from agent.orders.performer import Hands, Performer
from agent.readiness.history import History
from agent.upgrade.context import Deps
from agent.weighed import WeighedNode
from agent.weighing import Weighing
from agent.working import Working


class Duties:
    """`load` before anything else; `work` is what goes on for ever, by name."""

    def __init__(
        self,
        deps: Deps,
        fleet: Membership,
        company: Company,
        conductor: Conductor,
        observing: Observing,
        history: History,
        balancing: LoadBalancing,
        changes: Changes,
    ) -> None:
        self._conductor, self._traffic = conductor, balancing.traffic
        freezes, monitor = company.freezes, observing.monitor
        node = WeighedNode(
            deps.layout,
            self._traffic,
            lambda: conductor.record,
            freezes,
            company.mesh,
            monitor.document,
            fleet.releases.kept,
            lambda: conductor.in_hand,
        )
        self.weighing = Weighing(self._traffic, company.attestor, node, deps.clock, changes.notify)
        changes.listen(self.weighing.stir)
        self._working = Working(
            deps.config,
            deps.layout,
            history,
            monitor,
            conductor,
            deps.clock,
            service=deps.service,
            gateway=deps.gateway,
            installer=deps.installer,
            frozen=lambda: bool(freezes.now()),
            on_change=changes.notify,
        )
        self.vitals, self.worker = self._working.vitals, self._working.worker
        hands = Hands(self._hold, self.weighing.again)
        self.ordering = make_ordering(
            fleet.name,
            deps,
            hands,
            conductor,
            freezes,
            observing.logs,
            fleet.coordinator,
            changes.notify,
            *self._capabilities(fleet, deps, hands),
        )

    def _capabilities(self, fleet: Membership, deps: Deps, hands: Hands) -> tuple[Performer, ...]:
        bench = Bench(fleet.name, deps, hands, Shelf(deps.layout.home))
        return InstallCapability(bench, fleet.releases), RemoveCapability(bench)

    async def load(self) -> None:
        await self.worker.load()

    def weight(self) -> int:
        """What load balancers are told; a worker that is drained takes none of its share."""
        return self.worker.share(self._traffic.get())

    @asynccontextmanager
    async def _hold(self) -> AsyncIterator[None]:
        """The gateway is in an order's hands: that it is another process afterwards is no crash."""
        try:
            async with self._conductor.hold():
                try:
                    yield
                finally:
                    self.vitals.expect_restart()
        finally:
            self.weighing.stir()

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        return {
            "orders": self.ordering.run(),
            "share": self.weighing.run(),
            "vitals": self.vitals.run(),
            "worker": self.worker.run(),
        }
