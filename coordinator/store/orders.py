"""Orders, what happened to each, and the promises about them that were broken. A change of an order, its event
and the end of its notices are one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import metadata
from shared.errors import ConflictError, NotFoundError
from shared.orders import (
    MAX_OPEN,
    OPEN,
    Breach,
    FoundBreach,
    Notice,
    OrderEvent,
    OrderKind,
    OrderState,
    OrderView,
)

orders = Table(
    "orders",
    metadata,
    Column("id", String(48), primary_key=True),
    Column("node", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("ended", Float),
    Column("request", String(64), unique=True),
    Column("body", JSON, nullable=False),
    Column("result", Text, nullable=False, default=""),
    Index("orders_by_state", "state", "created"),
)

order_events = Table(
    "order_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("order", String(48), nullable=False),
    Column("at", Float, nullable=False),
    Column("who", String(64), nullable=False),
    Column("event", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", String(64)),
    Index("order_events_by_order", "order", "key"),
)

order_breaches = Table(
    "order_breaches",
    metadata,
    Column("order", String(48), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("node", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("told", Float),
)

order_notices = Table(
    "order_notices",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("node", String(32), nullable=False),
    Column("order", String(48), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("node", "order", "kind", name="one_notice_per_breach"),
)

_OPEN = tuple(sorted(OPEN))
MAX_EVENTS = 500
"""Of one order, shown; the first ones and the last."""


@dataclass(frozen=True)
class Wanted:
    """Which orders. `open_only` leaves out what has ended; `oldest` turns the order of the list round."""

    node: str | None = None
    kind: OrderKind | None = None
    state: OrderState | None = None
    open_only: bool = False
    oldest: bool = False
    limit: int = 100

    def fits(self, order: OrderView) -> bool:
        return (
            self.node in (None, order.node)
            and self.kind in (None, order.kind)
            and self.state in (None, order.state)
            and (not self.open_only or order.state in OPEN)
        )


@dataclass(frozen=True)
class Noted:
    """What goes into the history with a change. `key` is the hash of who sent it under which Idempotency-Key."""

    who: str
    event: str
    at: float
    reason: str = ""
    key: str | None = None
    result: str | None = None


class OrderQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, order: OrderView, noted: Noted) -> OrderView:
        """The order, or the one that the same request made before. Raises ConflictError when its node has as many
        open ones as it may."""
        async with self._db.write() as db:
            if noted.key is not None:
                same = select(orders).where(orders.c.request == noted.key)
                if (row := (await db.execute(same)).one_or_none()) is not None:
                    return _order(row)
            many = select(func.count()).where(
                orders.c.node == order.node, orders.c.state.in_(_OPEN)
            )
            if int(await db.scalar(many) or 0) >= MAX_OPEN:
                raise ConflictError(
                    f"{order.node} has {MAX_OPEN} open orders",
                    remedy=f"see them: rollcall order list --node {order.node} --open",
                )
            await db.execute(insert(orders).values(**_row(order), request=noted.key, result=""))
            await _note(db, order, noted)
            answered_by(order)
        return order

    async def change(
        self, order_id: str, change: Callable[[OrderView], OrderView], noted: Noted
    ) -> OrderView:
        """The order after `change`, or as it is where the same request has changed it before.

        Raises NotFoundError, and whatever `change` raises: then nothing is written.
        """
        async with self._db.write() as db:
            found = await db.execute(select(orders).where(orders.c.id == order_id))
            row = found.one_or_none()
            if row is None:
                raise NotFoundError(f"no order {order_id}", remedy="see: rollcall order list")
            before = _order(row)
            if noted.key is not None:
                same = select(order_events.c.id).where(
                    order_events.c.order == order_id, order_events.c.key == noted.key
                )
                if await db.scalar(same) is not None:
                    return before
            after = change(before)
            values = _row(after)
            if noted.result is not None:
                values["result"] = noted.result
            await db.execute(update(orders).where(orders.c.id == order_id).values(**values))
            await _note(db, after, noted)
            if after.state not in OPEN:
                await db.execute(delete(order_notices).where(order_notices.c.order == order_id))
            answered_by(after)
            return after

    async def find(self, order_id: str) -> tuple[OrderView, str] | None:
        """The order and its result."""
        async with self._db.read() as db:
            found = await db.execute(select(orders).where(orders.c.id == order_id))
            row = found.one_or_none()
        return None if row is None else (_order(row), row.result)

    async def listed(self, wanted: Wanted) -> list[OrderView]:
        statement = select(orders)
        for column, value in (
            ("node", wanted.node),
            ("kind", wanted.kind),
            ("state", wanted.state),
        ):
            if value is not None:
                statement = statement.where(orders.c[column] == str(value))
        if wanted.open_only:
            statement = statement.where(orders.c.state.in_(_OPEN))
        place = orders.c.created if wanted.oldest else orders.c.created.desc()
        statement = statement.order_by(place, orders.c.id).limit(wanted.limit)
        async with self._db.read() as db:
            return [_order(row) for row in (await db.execute(statement)).all()]

    async def events(self, order_id: str) -> list[OrderEvent]:
        mine = select(order_events).where(order_events.c.order == order_id)
        async with self._db.read() as db:
            rows = (await db.execute(mine.order_by(order_events.c.id))).all()
        half = MAX_EVENTS // 2
        shown = rows if len(rows) <= MAX_EVENTS else [*rows[:half], *rows[-half:]]
        return [
            OrderEvent(
                at=row.at,
                who=row.who,
                event=row.event,
                state=OrderState(row.state),
                reason=row.reason,
            )
            for row in shown
        ]

    async def breaches(self, ids: Iterable[str]) -> dict[str, list[Breach]]:
        """By order, the oldest first."""
        wanted = list(ids)
        found: dict[str, list[Breach]] = {}
        async with self._db.read() as db:
            for start in range(0, len(wanted), 500):
                mine = order_breaches.c.order.in_(wanted[start : start + 500])
                rows = await db.execute(
                    select(order_breaches).where(mine).order_by(order_breaches.c.at)
                )
                for row in rows.all():
                    found.setdefault(row.order, []).append(
                        Breach(kind=row.kind, reason=row.reason, at=row.at, told=row.told)
                    )
        return found

    async def note_breaches(self, found: Sequence[FoundBreach], now: float) -> None:
        """Breaches that are new, and the messages that go out: all or nothing, each once."""
        async with self._db.write() as db:
            for each in found:
                named = {"order": each.order, "kind": each.kind.value}
                row = {**named, "node": each.node, "reason": each.reason, "at": now}
                await db.execute(upsert(order_breaches).values(**row).on_conflict_do_nothing())
                if not each.told:
                    continue
                mine = (order_breaches.c.order == each.order) & (order_breaches.c.kind == each.kind)
                await db.execute(update(order_breaches).where(mine).values(told=now))
                text = f"order {each.order}: {each.reason}"
                await db.execute(
                    upsert(order_notices).on_conflict_do_nothing(),
                    [{**named, "node": name, "text": text, "at": now} for name in each.told],
                )

    async def notices(self, limit: int, node: str | None = None) -> dict[str, list[Notice]]:
        """By node, or of one, the newest `limit` of each."""
        newest = select(order_notices).order_by(order_notices.c.id.desc())
        if node is not None:
            newest = newest.where(order_notices.c.node == node).limit(limit)
        async with self._db.read() as db:
            rows = (await db.execute(newest)).all()
        found: dict[str, list[Notice]] = {}
        for row in rows:
            mine = found.setdefault(row.node, [])
            if len(mine) < limit:
                mine.append(Notice(order=row.order, kind=row.kind, text=row.text, at=row.at))
        return found

    async def end_notices(self, open_ids: Iterable[str]) -> int:
        """Of all orders but these. Returns how many there were."""
        kept = set(open_ids)
        async with self._db.write() as db:
            noted = set((await db.execute(select(order_notices.c.order).distinct())).scalars())
            gone = sorted(noted - kept)
            for start in range(0, len(gone), 500):
                mine = order_notices.c.order.in_(gone[start : start + 500])
                await db.execute(delete(order_notices).where(mine))
        return len(gone)

    async def forget(self, before: float) -> None:
        """Orders of this table that ended before, with all that belongs to them."""
        old = select(orders.c.id).where(orders.c.ended < before)
        async with self._db.write() as db:
            for table in (order_events, order_breaches):
                await db.execute(delete(table).where(table.c.order.in_(old)))
            await db.execute(delete(orders).where(orders.c.ended < before))


async def _note(db: AsyncConnection, order: OrderView, noted: Noted) -> None:
    await db.execute(
        insert(order_events).values(
            order=order.id,
            at=noted.at,
            who=noted.who,
            event=noted.event,
            state=order.state.value,
            reason=noted.reason,
            key=noted.key,
        )
    )


def _row(order: OrderView) -> dict[str, Any]:
    return {
        "id": order.id,
        "node": order.node,
        "kind": order.kind.value,
        "state": order.state.value,
        "created": order.created,
        "ended": order.ended,
        "body": order.model_dump(mode="json", exclude={"breaches"}),
    }


def _order(row: Row[Any]) -> OrderView:
    return OrderView.model_validate(row.body)
