"""The alerts of this fleet: looked at again and again, acknowledged and silenced by people, told to channels."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable

import structlog

from coordinator.alerts.config import ChannelConfig
from coordinator.alerts.courier import Courier
from coordinator.alerts.ledger import Step, step
from coordinator.alerts.model import (
    Acknowledgement,
    Alert,
    AlertState,
    Change,
    Finding,
    Severity,
    Silence,
)
from coordinator.alerts.rules import findings
from coordinator.alerts.scene import Broken, Scene
from coordinator.store.alerts import AlertStore
from coordinator.store.settling import answered_by
from shared.clock import Clock
from shared.errors import ConflictError, NotFoundError, RollcallError

log = structlog.get_logger()

LOOK_EVERY_S = 5.0
PRUNE_EVERY_S = 3600.0


def new_id() -> str:
    return secrets.token_hex(4)


class AlertBook:
    """The only writer of alerts: its lock keeps an acknowledgement and a look from overwriting each other.
    `on_change` is called after every change that people see."""

    def __init__(
        self,
        store: AlertStore,
        channels: Iterable[ChannelConfig],
        couriers: Iterable[Courier],
        on_change: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._store, self._clock, self._on_change = store, clock, on_change
        self._channels = tuple(channels)
        self._couriers = tuple(couriers)
        self._lock = asyncio.Lock()

    def broken(self) -> dict[str, Broken]:
        return {each.name: each.broken for each in self._couriers if each.broken is not None}

    def _wanted_by(self, alert: Alert) -> list[str]:
        return [each.name for each in self._channels if each.wants(alert)]

    async def run(self, scene: Callable[[], Awaitable[Scene]]) -> None:
        """Look every five seconds; couriers deliver meanwhile."""
        async with asyncio.TaskGroup() as group:
            for each in self._couriers:
                group.create_task(each.run(), name=f"alerts to {each.name}")
            pruned = -PRUNE_EVERY_S
            while True:
                if self._clock.monotonic() - pruned >= PRUNE_EVERY_S:
                    await self._store.prune(self._clock.now())
                    pruned = self._clock.monotonic()
                try:
                    await self.look(findings(await scene()))
                except RollcallError as error:
                    log.warning("alerts could not be looked for", reason=str(error))
                await self._clock.sleep(LOOK_EVERY_S)

    async def look(self, found: Iterable[Finding]) -> Step:
        now = self._clock.now()
        async with self._lock:
            known, silences = await self._store.open(), await self._store.silences()
            made = step(known, found, silences, self._wanted_by, now, new_id)
            await self._write(made)
        return made

    async def _write(self, made: Step, *, by: str = "", reason: str = "") -> None:
        """A channel that is configured no more hears no more."""
        known = {each.name for each in self._channels}
        made.told = [each for each in made.told if each[0] in known]
        if made.changed or made.forgotten:
            await self._store.apply(made, self._clock.now(), by=by, reason=reason)
        if made.told:
            for each in self._couriers:
                each.wake()
        if made.noted:
            self._on_change()

    async def acknowledge(self, id_: str, by: str, reason: str) -> Alert:
        """Raises NotFoundError, and ConflictError for one that is over or that somebody has taken on already."""
        async with self._lock:
            alert = await self._store.find(id_)
            if alert is None or alert.state is AlertState.PENDING:
                raise NotFoundError(
                    f"there is no alert {id_}", remedy="list them: rollcall alert list"
                )
            if alert.state is AlertState.ENDED:
                raise ConflictError(f"alert {id_} is over")
            if alert.acknowledged is not None:
                raise ConflictError(f"{alert.acknowledged.by} has acknowledged alert {id_} already")
            taken = Acknowledgement(at=self._clock.now(), by=by, reason=reason)
            alert = alert.with_(acknowledged=taken)
            made = Step(
                changed=[alert],
                noted=[(Change.ACKNOWLEDGED, alert)],
                told=[(channel, Change.ACKNOWLEDGED, alert) for channel in alert.told],
            )
            answered_by(alert)
            await self._write(made, by=by, reason=reason)
        return alert

    async def silence(self, silence: Silence) -> Silence:
        """From now on, by the next look at the latest."""
        async with self._lock:
            answered_by(silence)
            await self._store.keep_silence(silence)
        return silence

    async def lift(self, id_: str, by: str) -> Silence:
        """Raises NotFoundError, and ConflictError for a silence that is over."""
        now = self._clock.now()
        async with self._lock:
            found = next((each for each in await self._store.silences() if each.id == id_), None)
            if found is None:
                raise NotFoundError(
                    f"there is no silence {id_}", remedy="list them: rollcall alert silences"
                )
            if found.ends <= now:
                raise ConflictError(f"silence {id_} is over")
            lifted = found.model_copy(update={"ends": now, "lifted_by": by})
            answered_by(lifted)
            await self._store.keep_silence(lifted)
        return lifted


def sample_alert(now: float) -> Alert:
    """What a test of a channel says."""
    found = Finding("test", "fleet", Severity.LOW, "this is a test of a Rollcall channel", now)
    alert = Alert.of(found, new_id(), now)
    return alert.with_(state=AlertState.FIRING, began=now)
