"""The composition root: everything is made here, once, and stopped in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from agent.changes import Changes
from agent.company import Company
from agent.conductor import Conductor
from agent.config import AgentConfig
from agent.consumers import Consumers
from agent.doors import Doors
from agent.duties import Duties
from agent.freezes import FreezeList, HandFreeze
from agent.health import Senses
from agent.layout import Layout
from agent.loadbalancing import LoadBalancing
from agent.membership import Membership
from agent.observing import Observing
from agent.openclaw.gateway import Gateway
from agent.openclaw.settings import sweep_settings
from agent.orders.claims import UpgradeClaims
from agent.peers.directory import Directory
from agent.peers.listing import PeersReport
from agent.readiness.history import History
from agent.readiness.logs.forms import LogReport
from agent.readiness.publishing import Published
from agent.remembering import Remembering
from agent.reporting import build_report
from agent.service.choose import choose_service
from agent.service.host import Host
from agent.store import Store
from agent.sync import Sync
from agent.trees import Trees
from agent.trust import Trust
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.context import Deps
from agent.upgrade.installers.factory import make_installer
from agent.upgrade.record import Record
from agent.upgrade.snapshots import Snapshots
from agent.upgrading import Upgrading, own_version
from shared.account import Account
from shared.attesting import AttestationExport
from shared.clock import Clock
from shared.command import end_children_of
from shared.durable import hold_lock
from shared.errors import ConflictError
from shared.http import session
from shared.npm import Npm
from shared.report import NodeReport, RollbackPlan
from shared.scratch import sweep_scratch
from shared.wire import short


class Daemon:
    """One agent: `start` wires it on an exit stack, `run` lives until it is cancelled."""

    def __init__(
        self,
        config: AgentConfig,
        layout: Layout,
        trust: Trust,
        clock: Clock,
        account: Account | None = None,
        host: Host | None = None,
    ) -> None:
        self._config, self._layout, self._trust, self._clock = config, layout, trust, clock
        self._account, self._host = account, host or Host.here()
        self._stack = AsyncExitStack()
        self._changes = Changes()
        self._directory = Directory()
        self._tools = config.openclaw.tools(layout, account)
        self._snapshots = Snapshots(Bookmarks(layout.bookmarks), str(layout.home))
        self._installer = make_installer(config, layout, self._tools)
        self._balancing = LoadBalancing(config, layout, clock, self._changes.notify)
        self._hand = HandFreeze(layout.home, trust.name, clock, self._changes.notify)
        self._progress = ""

    async def __aenter__(self) -> Daemon:
        """Take the home and wire the parts. Raises ConflictError when another agent has the home."""
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        config, layout, stack = self._config, self._layout, self._stack
        stack.enter_context(hold_lock(layout.lock, what=f"{layout.home}"))
        await asyncio.to_thread(end_children_of, str(layout.home))
        await asyncio.to_thread(self._sweep)
        self._store = await Store.open(layout.database)
        stack.push_async_callback(self._store.close)
        await self._open_fleet()
        await self._open_gateway()
        await self._open_memory()
        self._observe()
        await self._open_mesh()
        self._open_upgrade()
        await self._open_duties()
        self._open_sync()
        self._consumers = Consumers(
            config.hooks,
            self._trust.name,
            str(layout.home),
            self._store,
            self.mesh,
            self._clock,
            self._changes,
        )
        self._doors = Doors(config, layout, self, self._consumers.feed, stack)

    async def _open_fleet(self) -> None:
        self._fleet = Membership(
            self._layout, self._trust, self._directory, self._clock, self._config.peers
        )
        await self._fleet.open(self._stack)

    async def _open_gateway(self) -> None:
        config, layout = self._config, self._layout
        to_gateway = await self._stack.enter_async_context(session(per_host=4, speaks=None))
        self._gateway = Gateway(to_gateway, config.gateway.port)
        self.service = await choose_service(
            config, layout, self._account, self._clock, self._changes.notify, self._host
        )
        self._trees = Trees(
            config.openclaw,
            layout,
            config.gateway.state,
            self._snapshots.bookmarks,
            self.service,
            self._clock,
            self._last_record,
            self._prune,
        )

    def _observe(self) -> None:
        self._observing = Observing(
            self._config,
            self._layout,
            self._fleet,
            self._gateway,
            self._installer,
            self.service,
            self._clock,
            self._changes,
            remembering=self._remembering,
        )
        self.monitor = self._observing.monitor

    def _open_sync(self) -> None:
        self._sync = Sync(
            self._fleet.coordinator,
            self._trust,
            self._store,
            self._clock,
            self.report,
            self.conductor.told,
            self._fleet.releases,
            clears=self._company.clears,
            addresses=self._company.discovering,
            shares=self._duties.weighing,
            orders=self._duties.ordering,
            drains=self._duties.worker,
            on_withdrawn=self.conductor.take_back,
        )
        self._changes.listen(self._sync.changed)

    async def _prune(self) -> None:
        await self.keeper.prune()

    async def _open_memory(self) -> None:
        self._remembering = Remembering(self._config, self._store, self._clock, self._last_record)
        await self._remembering.chronicle.load()
        self._stack.push_async_callback(self._remembering.chronicle.save)

    def _last_record(self) -> Record | None:
        return self.conductor.record

    def _sweep(self) -> None:
        """What an earlier agent of this home has left half done."""
        self._layout.sweep()
        sweep_scratch(self._layout.scratch)
        sweep_settings(self._config.gateway.state)

    def _open_upgrade(self) -> None:
        self._deps = self._make_deps()
        self._own = own_version(
            self._config.agent,
            self._layout,
            Senses(self.monitor.document, self._reaches_somebody, lambda: self._sync.refused),
            self._clock,
            self._fleet.releases,
            self._company.alarms,
            self._say,
        )
        self._upgrading = Upgrading(
            self._deps,
            self._store,
            self.mesh,
            self._company.alarms,
            self.freezes,
            self.monitor,
            self._changes,
            self._own,
        )
        self.conductor: Conductor = self._upgrading.conductor
        self.keeper = self._upgrading.keeper

    async def _open_duties(self) -> None:
        self._duties: Duties = Duties(
            self._deps,
            self._fleet,
            self._company,
            self.conductor,
            self._observing,
            self._remembering.history,
            self._balancing,
            self._changes,
        )
        await self._duties.load()

    def _reaches_somebody(self) -> bool:
        return self._sync.connected or self._company.reaches_somebody()

    async def _open_mesh(self) -> None:
        self._company = Company(
            self._config,
            self._layout,
            self._trust,
            self._store,
            self._fleet,
            self._directory,
            self._clock,
            monitor=self.monitor,
            hand=self._hand,
            changes=self._changes,
            epoch=await self._store.next_epoch(self._clock.now()),
            has_list=lambda: self._sync.connected,
            settled=lambda: self.conductor.settled,
        )
        await self._company.open(self._stack)
        self.mesh, self.freezes = self._company.mesh, self._company.freezes

    def _make_deps(self) -> Deps:
        return Deps(
            config=self._config,
            layout=self._layout,
            role=self._trust.role,
            clock=self._clock,
            tools=self._tools,
            npm=Npm(self._tools),
            installer=self._installer,
            service=self.service,
            gateway=self._gateway,
            readiness=self.monitor,
            releases=self._fleet.releases,
            attestors=self._company.attestor,
            alarm=self._company.alarms,
            weight=self._balancing.traffic,
            claims=UpgradeClaims(self._fleet.coordinator, self._config.upgrade),
            trees=self._trees,
            snapshots=self._snapshots,
            baseline=self._remembering.take_baseline,
            progress=self._say,
        )

    async def run(self, on_ready: Callable[[dict[str, str]], None]) -> None:
        """Recover, then serve; `on_ready` is told the addresses once the doors are open.
        Cancellation stops the tasks; the gateway keeps running."""
        await self.conductor.recover()
        for_peers = await self._doors.open(self._trust, self._fleet, self._company, self._balancing)
        on_ready(self._doors.urls)
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("service", self.service.keep()),
                ("readiness", self.monitor.run()),
                ("history", self._remembering.chronicle.run()),
                ("releases", self._fleet.releases.run()),
                ("certificate", self._fleet.renewal.run()),
                ("outlook", self._upgrading.outlook.run()),
                ("trees", self._trees.run()),
                ("sync", self._sync.run()),
                ("health", self._own.health.run()),
                ("conductor", self.conductor.run()),
                *self._duties.work().items(),
                ("freeze-hook", self._consumers.hook.run()),
                ("consumers", self._consumers.feed.run()),
                *self._company.work(for_peers).items(),
            ):
                group.create_task(work, name=name)

    async def answer_alone(self, *, recover: bool) -> None:
        """Open the private door only: for a command while no agent runs here."""
        await (self.conductor.recover() if recover else self.conductor.load())
        await self._doors.open_socket()

    def _say(self, text: str) -> None:
        text = short(text, 500)
        if text != self._progress:
            self._progress = text
            self._changes.notify()

    def published(self) -> Published:
        return self.monitor.published()

    @property
    def history(self) -> History:
        return self._remembering.history

    def weight(self) -> int:
        return self._duties.weight()

    def told_readiness(self, address: str | None, told: str) -> None:
        self._balancing.told_readiness(address, told)

    async def report(self) -> NodeReport:
        return build_report(
            self._trust,
            self.mesh,
            self._directory,
            self.monitor.document(),
            self.conductor.record,
            freezes=self.freezes.now(),
            progress=self._progress,
            waiting=self.conductor.waiting or self._duties.ordering.waiting,
            withdrawn=self.conductor.withdrawn,
            urls=self._doors.urls,
            broadcasts=await self.mesh.recent_broadcasts(),
            alerts=[
                *self._fleet.alerts,
                *self._sync.alerts,
                *self._consumers.hook.alerts,
                *self._company.discovering.alerts,
                *self._duties.ordering.alerts,
            ],
            certificate_expires=self._fleet.renewal.expires,
            blocked=await self._upgrading.keeper.blocklist(),
            standing=self._upgrading.outlook.now,
            balancers=self._balancing.askers.seen(),
            weight=self._balancing.traffic.get(),
            weight_wanted=self._duties.weighing.wanted,
            weight_waits=self._duties.weighing.waits,
            health=self._duties.vitals.health(),
            cohort=self._duties.worker.cohort(),
            trends=self._remembering.trends.now(),
            checks=self._remembering.checks.of(self.monitor.document()),
            away=self._company.liveness.away(),
            addresses=self._company.discovering.addresses(),
        )

    async def peers(self) -> PeersReport:
        return await self._company.discovering.listing()

    async def roll_back(self, reason: str) -> NodeReport:
        await self.conductor.runner.roll_back(reason)
        return await self.report()

    def logs(self) -> LogReport:
        return self._observing.logs.report()

    async def plan_rollback(self) -> RollbackPlan:
        return await self.conductor.runner.plan_rollback()

    async def clear(self, key: str, reason: str) -> None:
        await self.mesh.clear(key, reason)

    async def attestations(self, order: str) -> AttestationExport:
        return await self._company.attestor.export(order)

    async def take_clear(self, envelope: bytes) -> str:
        return await self._company.clears.hand_in(envelope)

    async def freeze(self, who: str, why: str) -> FreezeList:
        await self._hand.freeze(who, why)
        return self.freezes.listing()

    async def unfreeze(self, who: str, why: str) -> FreezeList:
        await self._hand.lift(who, why)
        return self.freezes.listing()

    async def change_keys(self) -> str:
        """Raises ConflictError while this node has an open red: a peer that has not heard it yet could
        not verify it any more. One that was raised meanwhile is said again under the new key."""
        if reds := self.mesh.own_reds():
            raise ConflictError(
                f"this node has an open red, {reds[0].key}",
                remedy="clear it first: rollcall-agent clear KEY",
            )
        keyid = await self._fleet.renewal.change_keys()
        for red in self.mesh.own_reds():
            await self.mesh.broadcast(red.payload.body)
        return keyid
