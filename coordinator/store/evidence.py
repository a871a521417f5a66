"""What evidence needs of each moment, kept when it was so: rosters as they were signed, and how nodes said they were
in each phase of a rollout. And what is asked of the other tables for one rollout."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
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
    or_,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.capabilities import capability_runs
from coordinator.store.database import Database
from coordinator.store.orders import order_breaches, order_events, orders
from coordinator.store.rollouts import plans
from coordinator.store.tables import audit, history, messages, metadata, rollouts
from coordinator.store.traffic import traffic_history, traffic_snapshots
from shared.canonical import sha256_hex
from shared.capability import OPEN_RUNS
from shared.report import NodeReport
from shared.roster import Roster

MAX_NOTES = 100
"""Of one order: more changes than a whole upgrade with its rollback has."""
MAX_NOTES_KEPT = 200_000
NOTED_AFTER_S = 86400.0
"""So long after its end a node's upgrade is what it says something about."""
MAX_ROSTERS = 64
IDS_AT_ONCE = 500

rosters = Table(
    "rosters",
    metadata,
    Column("fleet_version", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("raw", Text, nullable=False),
)

readiness_notes = Table(
    "readiness_notes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("node", String(32), nullable=False),
    Column("rollout", String(32), nullable=False),
    Column("body", JSON, nullable=False),
    Index("readiness_notes_by_rollout", "rollout"),
)


ABOUT_ROLLOUTS: Mapping[str, Table] = {
    "plan": plans,
    "history": history,
    "traffic": traffic_history,
    "snapshots": traffic_snapshots,
}
"""Tables whose rows about a rollout go into its evidence, by the name that they have there."""


@dataclass(frozen=True)
class Span:
    """Of a rollout, in seconds since the epoch: from its plan to a while after its end."""

    begins: float
    ends: float


Noted = tuple[tuple[object, ...] | None, int]


class EvidenceStore:
    def __init__(self, database: Database) -> None:
        self._db = database
        self._noted: dict[str, Noted] = {}
        """Of each node what was noted last, and how many notes its order has had."""

    async def keep_roster(self, roster: Roster, raw: str) -> None:
        values = {"fleet_version": roster.fleet_version, "epoch": roster.epoch}
        async with self._db.write() as db:
            await db.execute(
                upsert(rosters).values(**values, at=roster.issued, raw=raw).on_conflict_do_nothing()
            )

    async def note(self, report: NodeReport, now: float) -> None:
        """How a node says that it is, when its phase, its verdict or its hash has changed within a rollout."""
        upgrade, ready = report.upgrade, report.readiness
        if upgrade is None or now - (upgrade.ended or now) > NOTED_AFTER_S:
            return
        seen = (
            upgrade.order,
            upgrade.phase,
            upgrade.outcome,
            ready.status,
            ready.ready_probe_sha256,
            report.release,
        )
        if report.node not in self._noted:
            self._noted[report.node] = await self._noted_before(report.node, upgrade.order)
        before, count = self._noted[report.node]
        if before == seen:
            return
        count = count + 1 if before is not None and before[0] == upgrade.order else 1
        if count <= MAX_NOTES:
            await self._add_note(report, now)
        self._noted[report.node] = (seen, count)

    async def _noted_before(self, node: str, order: str) -> Noted:
        """By a coordinator before this one."""
        r = readiness_notes.c
        mine = (r.rollout == order.partition(":")[0]) & (r.node == node)
        wanted = select(readiness_notes).where(mine).order_by(r.id)
        rows = [row["body"] for row in await self._rows(wanted)]
        bodies = [body for body in rows if body["upgrade"]["order"] == order]
        if not bodies:
            return None, 0
        upgrade, ready = bodies[-1]["upgrade"], bodies[-1]["readiness"]
        return (
            order,
            upgrade["phase"],
            upgrade["outcome"],
            ready["status"],
            ready["ready_probe_sha256"],
            bodies[-1]["release"],
        ), len(bodies)

    async def _add_note(self, report: NodeReport, now: float) -> None:
        upgrade = report.upgrade
        if upgrade is None:
            return
        body = {
            "release": report.release,
            "version_on_disk": report.version_on_disk,
            "version_running": report.version_running,
            "agent_version": report.agent_version,
            "weight": report.weight,
            "readiness": report.readiness.model_dump(mode="json"),
            "upgrade": upgrade.model_dump(mode="json"),
        }
        async with self._db.write() as db:
            made = await db.execute(
                insert(readiness_notes).values(
                    at=now, node=report.node, rollout=upgrade.order.partition(":")[0], body=body
                )
            )
            last = int((made.inserted_primary_key or (0,))[0])
            if last % 1000 == 0:
                old = readiness_notes.c.id <= last - MAX_NOTES_KEPT
                await db.execute(delete(readiness_notes).where(old))

    async def rollout(self, id_: str) -> dict[str, Any] | None:
        """The row's body as it is stored."""
        async with self._db.read() as db:
            body = await db.scalar(select(rollouts.c.body).where(rollouts.c.id == id_))
        return None if body is None else dict(body)

    async def rows_about(self, table: Table, id_: str) -> list[dict[str, Any]]:
        """Of a table with a column `rollout`, in the order of its primary key."""
        wanted = select(table).where(table.c.rollout == id_)
        return await self._rows(wanted.order_by(*table.primary_key.columns))

    async def readiness(self, names: Collection[str], span: Span) -> list[dict[str, Any]]:
        """Notes of orders with these names before their colon, within the span."""
        r = readiness_notes.c
        within = (r.at >= span.begins) & (r.at <= span.ends)
        wanted = select(readiness_notes).where(r.rollout.in_(names), within)
        return await self._rows(wanted.order_by(r.id))

    async def messages_of(self, id_: str, names: Collection[str], span: Span) -> list[str]:
        """Claims and attestations of orders with these names before their colon, and of the rollout's steps of traffic;
        reds that were open within the span, with their ends and acks. As they were signed, in the order they came."""
        m = messages.c
        ended = select(m.ref).where(m.type.in_(["clear", "operator-clear"]), m.at < span.begins)
        reds = select(m.key).where(m.type == "red", m.at <= span.ends, m.key.not_in(ended))
        steps = select(traffic_history.c.id).where(traffic_history.c.rollout == id_)
        orders = or_(m.ref.in_(steps), *(m.ref.startswith(f"{name}:") for name in names))
        wanted = select(m.raw).where(
            or_(
                m.type.in_(["proven", "attestation"]) & orders,
                m.key.in_(reds),
                m.type.in_(["ack", "clear", "operator-clear"]) & m.ref.in_(reds),
            )
        )
        async with self._db.read() as db:
            return list((await db.execute(wanted.order_by(m.at, m.sha256))).scalars())

    async def orders_of(
        self, nodes: Collection[str], span: Span, limit: int
    ) -> list[dict[str, Any]]:
        """Orders besides upgrades that these nodes had open within the span, the oldest first, each with everything
        that happened to it. Of a result its size and hash: what is in it is the nodes' own."""
        o = orders.c
        open_then = (o.created <= span.ends) & (o.ended.is_(None) | (o.ended >= span.begins))
        wanted = select(orders).where(o.node.in_(nodes), open_then).order_by(o.created, o.id)
        rows = await self._rows(wanted.limit(limit))
        ids = [row["id"] for row in rows]
        events = await self._by_order(order_events, ids)
        breaches = await self._by_order(order_breaches, ids)
        return [
            {
                "order": row["body"],
                "events": events.get(row["id"], []),
                "breaches": breaches.get(row["id"], []),
                "result_chars": len(row["result"]),
                "result_sha256": sha256_hex(row["result"].encode()),
            }
            for row in rows
        ]

    async def _by_order(self, table: Table, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for start in range(0, len(ids), IDS_AT_ONCE):
            mine = table.c.order.in_(ids[start : start + IDS_AT_ONCE])
            for row in await self._rows(
                select(table).where(mine).order_by(*table.primary_key.columns)
            ):
                found.setdefault(row["order"], []).append(row)
        return found

    async def capability_runs(self, span: Span, limit: int) -> list[dict[str, Any]]:
        """Publishes and unpublishes that went on within the span, the oldest first."""
        r = capability_runs.c
        began = select(r.body).where(r.created <= span.ends).order_by(r.created.desc())
        async with self._db.read() as db:
            bodies = list((await db.execute(began.limit(limit))).scalars())
        going = [
            dict(each)
            for each in bodies
            if each["state"] in OPEN_RUNS or each["since"] >= span.begins
        ]
        return going[::-1]

    async def audit_of(self, span: Span, limit: int) -> list[dict[str, Any]]:
        """Every row between the first and the last of the span: without a gap, whatever the clock did."""
        a = audit.c
        within = (a.at >= span.begins) & (a.at <= span.ends)
        ends = select(func.min(a.id), func.max(a.id)).where(within)
        async with self._db.read() as db:
            first, last = (await db.execute(ends)).one()
        if first is None:
            return []
        wanted = select(audit).where(a.id >= first, a.id <= last).order_by(a.id).limit(limit)
        return await self._rows(wanted)

    async def rosters_of(self, span: Span) -> list[str]:
        """Those of the span, the one before it, and the newest; the newest first."""
        r = rosters.c
        newest = (r.fleet_version.desc(), r.epoch.desc())
        within = select(r.raw).where(r.at >= span.begins, r.at <= span.ends).order_by(*newest)
        before = select(r.raw).where(r.at < span.begins).order_by(*newest).limit(1)
        last = select(r.raw).order_by(*newest).limit(1)
        found: list[str] = []
        async with self._db.read() as db:
            for wanted in (last, within.limit(MAX_ROSTERS), before):
                found += (await db.execute(wanted)).scalars()
        return list(dict.fromkeys(found))

    async def _rows(self, wanted: Any) -> list[dict[str, Any]]:
        async with self._db.read() as db:
            rows: Sequence[Any] = (await db.execute(wanted)).all()
        return [dict(row._asdict()) for row in rows]
