"""Looks for promises about orders that were broken: now and then by itself, and when an operator asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from coordinator.orders.book import OrderBook
from coordinator.orders.sla import plan_sweep
from coordinator.orders.sources import Orders
from coordinator.store.orders import OrderQueries, Wanted
from coordinator.store.settling import answered_by
from shared.clock import Clock
from shared.errors import RollcallError
from shared.fleetsettings import FleetSettings
from shared.orders import SweepReport, SweepRequest

log = structlog.get_logger()

SettingsNow = Callable[[], Awaitable[FleetSettings]]

LOOK_EVERY_S = 5.0
TIDY_EVERY_S = 300.0
EVERY_ORDER = 100_000
FORGET_S = 90 * 86400.0
"""Orders that ended before are forgotten; the audit log has who asked for them."""
MAX_FOUND = 500
"""Breaches that a report lists; it counts them all."""


class Sweeper:
    def __init__(
        self,
        orders: Orders,
        book: OrderBook,
        queries: OrderQueries,
        settings: SettingsNow,
        clock: Clock,
    ) -> None:
        self._orders, self._book, self._queries = orders, book, queries
        self._settings, self._clock = settings, clock
        self._swept = self._tidied = clock.monotonic()

    async def run(self) -> None:
        """For ever: orders end when their time is over, whether the sweep is enabled or not."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except RollcallError as error:
                log.error("orders could not be looked through", reason=str(error))

    async def look(self) -> SweepReport | None:
        """What is due now: the end of expired orders, and a sweep if it is time for one."""
        await self._book.expire()
        sla, now = (await self._settings()).sla, self._clock.monotonic()
        if now - self._tidied >= TIDY_EVERY_S:
            self._tidied = now
            await self._tidy()
        if not sla.enabled or now - self._swept < sla.every_seconds:
            return None
        self._swept = now
        report = await self.sweep(SweepRequest())
        if report.breaches:
            log.warning("sla sweep", **_counts(report))
        return report

    async def sweep(self, asked: SweepRequest) -> SweepReport:
        """What is found is durable, with the messages that go out, before anybody is told."""
        sla, now = (await self._settings()).sla, self._clock.now()
        record_only = sla.record_only if asked.record_only is None else asked.record_only
        wanted = Wanted(open_only=True, oldest=True, limit=asked.limit)
        orders = (await self._orders.listed(wanted)).orders
        found = plan_sweep(orders, sla, now, record_only=record_only or asked.dry_run)
        report = SweepReport(
            at=now,
            dry_run=asked.dry_run,
            record_only=record_only,
            max_messages=sla.max_messages_per_sweep,
            scanned=len(orders),
            breaches=len(found),
            recorded=0 if asked.dry_run else sum(each.new for each in found),
            messages=sum(bool(each.told) for each in found),
            found=found[:MAX_FOUND],
        )
        if not asked.dry_run:
            changed = [each for each in found if each.new or each.told]
            answered_by(report)
            await self._queries.note_breaches(changed, now)
            for node in sorted({name for each in changed for name in each.told}):
                await self._book.changed(node)
        return report

    async def _tidy(self) -> None:
        """A notice goes with its order; the end of an upgrade is seen here."""
        every = await self._orders.listed(Wanted(open_only=True, oldest=True, limit=EVERY_ORDER))
        if await self._queries.end_notices(order.id for order in every.orders):
            await self._book.load()
        await self._queries.forget(self._clock.now() - FORGET_S)


def _counts(report: SweepReport) -> dict[str, int]:
    return {
        "scanned": report.scanned,
        "breaches": report.breaches,
        "recorded": report.recorded,
        "messages": report.messages,
    }
