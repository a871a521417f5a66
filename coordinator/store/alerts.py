"""Alerts, their history, silences, and what is still to be delivered to each channel."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import (
    JSON,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.alerts.ledger import Step
from coordinator.alerts.model import Alert, AlertEvent, AlertState, Change, Silence
from coordinator.alerts.queue import Queued, victims
from coordinator.store.database import Database
from coordinator.store.tables import metadata

log = structlog.get_logger()

MAX_QUEUED = 1000
"""Deliveries that wait for one channel."""
MAX_ENDED = 10_000
MAX_EVENTS = 50_000
KEPT_S = 90 * 86400.0

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("fingerprint", String(16), nullable=False),
    Column("rule", String(40), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("seen", Float, nullable=False),
    Column("ended", Float),
    Column("body", JSON, nullable=False),
    Index("alerts_by_state", "state", "ended"),
)

alert_events = Table(
    "alert_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("alert", String(8), nullable=False),
    Column("change", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("by", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Index("alert_events_by_alert", "alert"),
    sqlite_autoincrement=True,
)

alert_silences = Table(
    "alert_silences",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("ends", Float, nullable=False),
    Column("body", JSON, nullable=False),
)

alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("event", String(32), nullable=False),
    Column("channel", String(32), nullable=False),
    Column("alert", String(8), nullable=False),
    Column("change", String(16), nullable=False),
    Column("queued", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Index("alert_deliveries_by_channel", "channel", "id"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class Delivery:
    """One thing to tell one channel. `event` is the same at each attempt, so that a receiver that has had it
    already can see that. `alert` is as it was when it was queued."""

    id: int
    event: str
    channel: str
    change: Change
    alert: Alert
    queued: float
    attempts: int = 0
    error: str = ""


class AlertStore:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def open(self) -> list[Alert]:
        """Pending and firing, oldest first."""
        wanted = select(alerts.c.body).where(alerts.c.state != AlertState.ENDED.value)
        async with self._db.read() as db:
            rows = (await db.execute(wanted.order_by(alerts.c.seen, alerts.c.id))).scalars().all()
        return [Alert.model_validate(row) for row in rows]

    async def ended(self, limit: int, since: float = 0.0) -> list[Alert]:
        """The latest first."""
        wanted = (
            select(alerts.c.body)
            .where(alerts.c.state == AlertState.ENDED.value, alerts.c.ended >= since)
            .order_by(alerts.c.ended.desc(), alerts.c.id)
            .limit(limit)
        )
        async with self._db.read() as db:
            return [Alert.model_validate(row) for row in (await db.execute(wanted)).scalars()]

    async def find(self, id_: str) -> Alert | None:
        async with self._db.read() as db:
            body = await db.scalar(select(alerts.c.body).where(alerts.c.id == id_))
        return None if body is None else Alert.model_validate(body)

    async def events_of(self, id_: str) -> list[AlertEvent]:
        wanted = select(alert_events).where(alert_events.c.alert == id_).order_by(alert_events.c.id)
        async with self._db.read() as db:
            rows = (await db.execute(wanted)).all()
        return [AlertEvent.model_validate(row._asdict()) for row in rows]

    async def events_after(self, id_: int, limit: int) -> list[AlertEvent]:
        wanted = select(alert_events).where(alert_events.c.id > id_).order_by(alert_events.c.id)
        async with self._db.read() as db:
            rows = (await db.execute(wanted.limit(limit))).all()
        return [AlertEvent.model_validate(row._asdict()) for row in rows]

    async def last_event(self) -> int:
        async with self._db.read() as db:
            return int(await db.scalar(select(func.max(alert_events.c.id))) or 0)

    async def apply(self, made: Step, now: float, *, by: str = "", reason: str = "") -> None:
        """What changed, its history and its deliveries, all or nothing."""
        async with self._db.write() as db:
            for each in made.changed:
                await _keep(db, each)
            if made.forgotten:
                await db.execute(delete(alerts).where(alerts.c.id.in_(made.forgotten)))
            for change, alert in made.noted:
                await _note(db, change, alert, now, by, reason)
            for channel, change, alert in made.told:
                await _queue(db, channel, change, alert, now)

    async def silences(self) -> list[Silence]:
        wanted = select(alert_silences.c.body).order_by(alert_silences.c.ends.desc())
        async with self._db.read() as db:
            return [Silence.model_validate(row) for row in (await db.execute(wanted)).scalars()]

    async def keep_silence(self, silence: Silence) -> None:
        values = {"ends": silence.ends, "body": silence.model_dump(mode="json")}
        statement = upsert(alert_silences).values(id=silence.id, **values)
        async with self._db.write() as db:
            await db.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    async def next_for(self, channel: str) -> Delivery | None:
        wanted = select(alert_deliveries).where(alert_deliveries.c.channel == channel)
        async with self._db.read() as db:
            row = (await db.execute(wanted.order_by(alert_deliveries.c.id).limit(1))).one_or_none()
        if row is None:
            return None
        return Delivery(
            row.id,
            row.event,
            row.channel,
            Change(row.change),
            Alert.model_validate(row.body),
            row.queued,
            row.attempts,
            row.error,
        )

    async def delivered(self, id_: int) -> None:
        """Or given up: nobody tries it again."""
        async with self._db.write() as db:
            await db.execute(delete(alert_deliveries).where(alert_deliveries.c.id == id_))

    async def failed(self, delivery: Delivery, error: str) -> None:
        async with self._db.write() as db:
            await db.execute(
                update(alert_deliveries)
                .where(alert_deliveries.c.id == delivery.id)
                .values(attempts=delivery.attempts + 1, error=error)
            )

    async def queued(self) -> dict[str, int]:
        """How many deliveries wait, by channel."""
        counted = select(alert_deliveries.c.channel, func.count()).group_by(
            alert_deliveries.c.channel
        )
        async with self._db.read() as db:
            rows = (await db.execute(counted)).all()
        return {row[0]: int(row[1]) for row in rows}

    async def keep_channels(self, names: Sequence[str]) -> int:
        """Forget what waits for channels that are configured no more. Returns how much that was."""
        async with self._db.write() as db:
            done = await db.execute(
                delete(alert_deliveries).where(alert_deliveries.c.channel.not_in(names))
            )
            return int(done.rowcount)

    async def prune(self, now: float) -> None:
        """What nobody looks up any more: older than 90 days, or beyond what the tables hold."""
        over = alerts.c.state == AlertState.ENDED.value
        async with self._db.write() as db:
            newest = select(alerts.c.id).where(over).order_by(alerts.c.ended.desc())
            await db.execute(
                delete(alerts).where(
                    over,
                    (alerts.c.ended < now - KEPT_S)
                    | alerts.c.id.not_in(newest.limit(MAX_ENDED).scalar_subquery()),
                )
            )
            last = int(await db.scalar(select(func.max(alert_events.c.id))) or 0)
            await db.execute(delete(alert_events).where(alert_events.c.id <= last - MAX_EVENTS))
            await db.execute(delete(alert_silences).where(alert_silences.c.ends < now - KEPT_S))


async def _keep(db: AsyncConnection, alert: Alert) -> None:
    values = {
        "fingerprint": alert.fingerprint,
        "rule": alert.rule,
        "subject": alert.subject,
        "state": alert.state.value,
        "seen": alert.seen,
        "ended": alert.ended,
        "body": alert.model_dump(mode="json"),
    }
    statement = upsert(alerts).values(id=alert.id, **values)
    await db.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def _note(
    db: AsyncConnection, change: Change, alert: Alert, now: float, by: str, reason: str
) -> None:
    await db.execute(
        insert(alert_events).values(
            at=now,
            alert=alert.id,
            change=change.value,
            severity=alert.severity.value,
            by=by,
            reason=reason,
        )
    )


async def _queue(
    db: AsyncConnection, channel: str, change: Change, alert: Alert, now: float
) -> None:
    await db.execute(
        insert(alert_deliveries).values(
            event=secrets.token_hex(16),
            channel=channel,
            alert=alert.id,
            change=change.value,
            queued=now,
            attempts=0,
            error="",
            body=alert.model_dump(mode="json"),
        )
    )
    table = alert_deliveries.c
    mine = table.channel == channel
    count = int(await db.scalar(select(func.count()).where(mine)) or 0)
    if count <= MAX_QUEUED:
        return
    rows = (await db.execute(select(table.id, table.change).where(mine))).all()
    waiting = [Queued(row.id, Change(row.change)) for row in rows]
    gone = victims(waiting, count - MAX_QUEUED)
    log.warning("alerts are dropped: their receiver takes none", channel=channel, count=len(gone))
    await db.execute(delete(alert_deliveries).where(table.id.in_(gone)))
