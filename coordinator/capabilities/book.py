"""Begins runs and carries them on: collects the facts, asks the pipeline, makes the orders, writes what it says. A
coordinator that is killed anywhere goes on from what is written: an order is asked for under a key of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import structlog

from coordinator.capabilities.catalogue import Catalogue
from coordinator.capabilities.ordering import unwanted, wanted, with_order
from coordinator.capabilities.pipeline import Facts, advance, gates_of
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.orders.book import OrderBook, request_id
from coordinator.store.capabilities import CapabilityQueries
from shared.capability import (
    OPEN_RUNS,
    Capability,
    CapabilityDetail,
    CapabilityReport,
    CapabilityRun,
    CapabilityView,
    IndexEntry,
    IndexState,
    PublishRequest,
    RunNode,
    UnpublishRequest,
    Verb,
)
from shared.clock import Clock
from shared.errors import ConflictError, NotFoundError, RollcallError
from shared.orders import MAX_RESULT_CHARS, OrderRequest, OrderTerms, OrderView
from shared.wire import short

LOOK_EVERY_S = 1.0
EXPIRES_S = 3600.0
MAX_RUNS = 20
MAX_STEPS = 64
WHO = "capabilities"
log = structlog.get_logger()


class CapabilityBook:
    """The only writer of runs and index."""

    def __init__(
        self,
        queries: CapabilityQueries,
        catalogue: Catalogue,
        orders: OrderBook,
        fleet: FleetState,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._queries, self._catalogue, self._orders = queries, catalogue, orders
        self._fleet, self._notifier, self._clock = fleet, notifier, clock

    async def listed(self) -> list[CapabilityView]:
        return self._catalogue.views(await self._queries.index(), self._live())

    def _live(self) -> set[str]:
        return {node.name for node in self._fleet.roster.live()}

    async def detail(self, name: str) -> CapabilityDetail:
        """Raises NotFoundError."""
        versions = [each for each in await self.listed() if each.name == name]
        runs = await self._queries.runs_of(name, MAX_RUNS)
        if not versions and not runs:
            raise NotFoundError(f"no capability {name!r}", remedy="see: rollcall capability list")
        return CapabilityDetail(name=name, versions=versions, runs=runs)

    async def run_of(self, run_id: str) -> CapabilityRun:
        """Raises NotFoundError."""
        run = await self._queries.run(run_id)
        if run is None:
            raise NotFoundError(f"no run {run_id}", remedy="see: rollcall capability show NAME")
        return run

    async def publish(
        self, asked: PublishRequest, who: str, role: str, key: str | None
    ) -> CapabilityRun:
        """Begin; of a dry run the gates that change nothing are shown. Nodes that have another version of it are
        among the targets, for one name is one version; and what is for all nodes stays for all. Raises NotFoundError,
        ConflictError."""
        found = self._catalogue.find(asked.capability)
        manifest = found.manifest
        live = self._live()
        entry = (await self._queries.index()).get(manifest.name)
        before = entry if entry is not None and entry.state is IndexState.ACTIVE else None
        kept = live & set(before.nodes if before is not None else [])
        others = (set(asked.nodes or live) | kept) - {manifest.owner}
        if unknown := sorted(others - live):
            known = ", ".join(sorted(live)[:20])
            raise NotFoundError(f"no node is called {unknown[0]!r}", remedy=f"there are: {known}")
        run = self._new(Verb.PUBLISH, found.id, found.manifest.label, who, role, asked.reason)
        nodes = _nodes([manifest.owner, *sorted(others)])
        everywhere = not asked.nodes or (before is not None and before.everywhere)
        told = {"owner": manifest.owner, "nodes": nodes, "everywhere": everywhere}
        run = run.model_copy(update=told)
        if before is not None:
            was = {
                "previous": before.capability,
                "previous_label": f"{before.name}@{before.version}",
                "previous_nodes": before.nodes,
            }
            run = run.model_copy(update=was)
        return await self._begin(run, key, dry_run=asked.dry_run)

    async def unpublish(
        self, asked: UnpublishRequest, who: str, role: str, key: str | None
    ) -> CapabilityRun:
        """Raises NotFoundError for what is not in use."""
        entry = self._in_use(asked.capability, await self._queries.index())
        label = f"{entry.name}@{entry.version}"
        run = self._new(Verb.UNPUBLISH, entry.capability, label, who, role, asked.reason)
        live = self._live()
        names = [name for name in entry.nodes if name in live]
        owner = names[0] if names else "none"
        run = run.model_copy(update={"owner": owner, "nodes": _nodes(names)})
        return await self._begin(run, key, dry_run=asked.dry_run)

    def _in_use(self, text: str, index: dict[str, IndexEntry]) -> IndexEntry:
        used = [
            each
            for each in index.values()
            if each.state in (IndexState.ACTIVE, IndexState.DISABLED)
        ]
        for entry in used:
            named = (entry.name, f"{entry.name}@{entry.version}")
            if text in named or (len(text) >= 8 and entry.capability.startswith(text)):
                return entry
        names = ", ".join(f"{each.name}@{each.version}" for each in used) or "none"
        raise NotFoundError(f"no capability {text!r} is published", remedy=f"there are: {names}")

    def _new(
        self, verb: Verb, capability: str, label: str, who: str, role: str, note: str
    ) -> CapabilityRun:
        name, _, version = label.partition("@")
        now = self._clock.now()
        return CapabilityRun(
            id=secrets.token_hex(4),
            verb=verb,
            capability=capability,
            name=name,
            version=version,
            owner="none",
            by=short(who, 64),
            role=role,
            note=note,
            created=now,
            since=now,
            gates=gates_of(verb),
        )

    async def _begin(self, run: CapabilityRun, key: str | None, *, dry_run: bool) -> CapabilityRun:
        if dry_run:
            return await self._rehearse(run)
        made = await self._queries.add(run, request_id(run.by, key))
        self._notifier.notify()
        return made

    async def _rehearse(self, run: CapabilityRun) -> CapabilityRun:
        """As far as nothing is ordered and nothing is written."""
        facts = await self._facts(run)
        for _ in range(MAX_STEPS):
            step = advance(run, facts)
            if step.run == run or wanted(step.run) or step.entry is not None:
                return run
            run = step.run
        return run

    async def run(self) -> None:
        """For ever. What goes wrong with one run is looked at again."""
        while True:
            for run in await self._queries.open_runs():
                try:
                    await self.carry_on(run)
                except (RollcallError, OSError) as error:
                    log.warning("a capability's run waits", run=run.id, reason=str(error))
            await self._clock.sleep(LOOK_EVERY_S)

    async def carry_on(self, run: CapabilityRun) -> CapabilityRun:
        """As far as it goes now."""
        for _ in range(MAX_STEPS):
            step = advance(run, await self._facts(run))
            made = await self._order(step.run)
            if made == run and step.entry is None:
                break
            run = await self._queries.save(made, step.entry)
            self._notifier.notify()
            if run.state not in OPEN_RUNS:
                log.info("capability run ended", run=run.id, state=run.state, reason=run.reason)
                break
        return run

    async def _order(self, run: CapabilityRun) -> CapabilityRun:
        for order in unwanted(run):
            try:
                await self._orders.cancel(order, WHO, run.reason, None)
            except (ConflictError, NotFoundError):
                continue  # it has ended
        for want in wanted(run):
            terms = OrderTerms(
                subject=want.capability, label=want.label, reason=short(run.note or run.reason)
            )
            asked = OrderRequest(kind=want.kind, node=want.node, terms=terms, expires_s=EXPIRES_S)
            made = await self._orders.create(asked, WHO, want.key)
            run = with_order(run, want, made.id)
        return run

    async def _facts(self, run: CapabilityRun) -> Facts:
        now = self._clock.now()
        ids = [
            each for node in run.nodes for each in (node.order, node.way_back) if each is not None
        ]
        found = [detail for each in ids if (detail := await self._orders.find(each)) is not None]
        reports = {
            each.order.id: report
            for each in found
            if (report := _report(each.order, each.result)) is not None
        }
        capability: Capability | None = self._catalogue.signed(run.capability)
        return Facts(
            capability=capability,
            untrusted=await self._catalogue.distrust(run.capability, now),
            nodes=(await self._fleet.fleet()).nodes,
            now=now,
            orders={each.order.id: each.order for each in found},
            reports=reports,
        )


def _nodes(names: Iterable[str]) -> list[RunNode]:
    return [RunNode(node=name) for name in names]


def _report(order: OrderView, result: str) -> CapabilityReport | None:
    """What its node handed in; None for what cannot be read, or is of another."""
    if not result:
        return None
    try:
        report = CapabilityReport.from_bytes(result.encode(), max_bytes=MAX_RESULT_CHARS * 4)
    except RollcallError:
        return None
    return report if report.node == order.node else None
