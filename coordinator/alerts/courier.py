"""Delivers what is queued for one channel, in order, until its receiver has taken it or it is too old."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.alerts.channels import Channel
from coordinator.alerts.scene import Broken
from coordinator.store.alerts import AlertStore, Delivery
from shared.backoff import Backoff
from shared.clock import Clock, sleep_until
from shared.errors import RollcallError
from shared.http import RefusedError
from shared.wire import short

FIRST_S, LONGEST_S = 1.0, 300.0
GIVE_UP_S = 86400.0
IDLE_S = 30.0
NEVER_TAKEN = frozenset({400, 413, 422})
"""The receiver has read it and says that it is wrong: it would say so again."""
ERROR_CHARS = 300

log = structlog.get_logger()


class Courier:
    """One task for each channel, so that a dead receiver holds up its own alerts and nobody else. In one channel the
    order is the queue's: what an alert says later never overtakes what it said before."""

    def __init__(self, channel: Channel, store: AlertStore, clock: Clock) -> None:
        self._channel, self._store, self._clock = channel, store, clock
        self._wake = asyncio.Event()
        self._refreshed = -float("inf")
        self.broken: Broken | None = None

    @property
    def name(self) -> str:
        return self._channel.name

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(FIRST_S, LONGEST_S)
        while True:
            self._wake.clear()
            try:
                moved = await self.step()
            except RollcallError as error:
                self._note_failure(error)
                await self._clock.sleep(backoff.failed())
                continue
            backoff.succeeded()
            if not moved:
                idle = IDLE_S if self._channel.resend_s is None else self._channel.resend_s
                await sleep_until(self._wake, self._clock, idle)

    async def step(self) -> bool:
        """Deliver one, or refresh. False when there was nothing. Raises RollcallError when the receiver takes
        nothing now."""
        delivery = await self._store.next_for(self.name)
        if delivery is None:
            return await self._refresh()
        try:
            await self._channel.send(delivery)
        except RefusedError as error:
            if error.status not in NEVER_TAKEN:
                await self._postpone(delivery, error)
                raise
            log.error(
                "an alert was refused",
                channel=self.name,
                alert=delivery.alert.id,
                reason=str(error),
            )
        except RollcallError as error:
            await self._postpone(delivery, error)
            raise
        except Exception as error:  # what a channel does wrong ends nothing else here
            log.exception("a channel failed", channel=self.name)
            failure = RollcallError(f"{type(error).__name__}: {error}")
            await self._postpone(delivery, failure)
            raise failure from error
        self.broken = None
        await self._store.delivered(delivery.id)
        return True

    async def _postpone(self, delivery: Delivery, error: RollcallError) -> None:
        if self._clock.now() - delivery.queued > GIVE_UP_S:
            log.error("an alert was given up", channel=self.name, alert=delivery.alert.id)
            await self._store.delivered(delivery.id)
        else:
            await self._store.failed(delivery, short(error.message, ERROR_CHARS))

    async def _refresh(self) -> bool:
        """Not queued: what is said again is what is true then."""
        every, now = self._channel.resend_s, self._clock.monotonic()
        if every is None or now - self._refreshed < every:
            return False
        open_ = [each for each in await self._store.open() if self.name in each.told]
        if open_:
            await self._channel.refresh(open_)
            self.broken = None
        self._refreshed = now
        return False

    def _note_failure(self, error: RollcallError) -> None:
        if self.broken is None:
            log.warning("alerts do not go out", channel=self.name, reason=error.message)
            self.broken = Broken(self._clock.now(), short(error.message, ERROR_CHARS))
