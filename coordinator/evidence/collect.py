"""Puts one rollout's evidence together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from coordinator.evidence.archive import pack
from coordinator.evidence.trust import trust_members
from coordinator.home import KeyRing
from coordinator.repository import Repository
from coordinator.rollout.verbs import order_id
from coordinator.store.alerts import AlertStore
from coordinator.store.evidence import EvidenceStore, Span
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.envelope import ROSTER, peek
from shared.errors import ConflictError, NotFoundError
from shared.roster import MAX_ROSTER_BYTES, Roster

BEFORE_S, AFTER_S = 60.0, 600.0
"""What belongs to a rollout begins a little before it and ends a little after."""
MAX_AUDIT_ROWS = 50_000
MAX_ALERTS = 1000
MAX_ORDERS, MAX_RUNS = 5000, 1000


class Collector:
    """`tables` are those whose rows about a rollout go along, by name."""

    def __init__(
        self,
        store: EvidenceStore,
        alerts: AlertStore,
        repository: Repository,
        ring: KeyRing,
        tables: Mapping[str, Table],
        clock: Clock,
    ) -> None:
        self._store, self._alerts, self._repository = store, alerts, repository
        self._ring, self._tables, self._clock = ring, dict(tables), clock
        self._turn = asyncio.Lock()

    async def archive(self, rollout: str) -> bytes:
        """Raises NotFoundError, and ConflictError for more than an archive holds. One at a time: they are large."""
        async with self._turn:
            return await self._archive(rollout)

    async def _archive(self, rollout: str) -> bytes:
        body = await self._store.rollout(rollout)
        if body is None:
            raise NotFoundError(
                f"there is no rollout {rollout}", remedy="list them: rollcall rollout status"
            )
        ended = body.get("ended")
        span = Span(body["created"] - BEFORE_S, (ended or self._clock.now()) + AFTER_S)
        rosters = await self._store.rosters_of(span)
        values = await self._values(rollout, body, span)
        members = await asyncio.to_thread(_written, values)
        keys = self._ring.current
        numbers = []
        for raw in rosters:
            number = _read(raw).number
            numbers.append(number)
            members[f"rosters/{number[0]}-{number[1]}.json"] = raw.encode()
        members |= await asyncio.to_thread(
            trust_members, self._repository, _releases(body), {version for version, _ in numbers}
        )
        return await asyncio.to_thread(pack, rollout, keys.fleet, members, keys.roster)

    async def _values(self, rollout: str, body: Any, span: Span) -> dict[str, Any]:
        audit = await self._store.audit_of(span, MAX_AUDIT_ROWS + 1)
        if len(audit) > MAX_AUDIT_ROWS:
            raise ConflictError(f"the audit log has more than {MAX_AUDIT_ROWS} rows in that time")
        alerts = [*await self._alerts.open(), *await self._alerts.ended(MAX_ALERTS, span.begins)]
        rows = {
            name: await self._store.rows_about(table, rollout)
            for name, table in self._tables.items()
        }
        nodes = {node["name"] for node in body.get("nodes", [])}
        orders = await self._store.orders_of(nodes, span, MAX_ORDERS + 1)
        if len(orders) > MAX_ORDERS:
            raise ConflictError(f"these nodes had more than {MAX_ORDERS} orders in that time")
        names, undone = _names(body)
        return {
            "rollout": body,
            "messages": await self._store.messages_of(rollout, names, span),
            "readiness": await self._store.readiness(names | undone, span),
            "audit": audit,
            "orders": orders,
            "capabilities": await self._store.capability_runs(span, MAX_RUNS),
            "alerts": [each.model_dump(mode="json") for each in alerts if each.seen <= span.ends],
            **rows,
        }


def _written(values: Mapping[str, Any]) -> dict[str, bytes]:
    return {f"{name}.json": canonical_json(value) for name, value in values.items()}


def _read(raw: str) -> Roster:
    """The coordinator's own, which it has signed."""
    seen = peek(raw.encode(), ROSTER, max_bytes=MAX_ROSTER_BYTES)
    return Roster.from_bytes(seen.payload, max_bytes=MAX_ROSTER_BYTES)


def _names(body: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """What stands before the colon in this rollout's orders, each attempt's, and in the orders that it undoes."""
    nodes = body.get("nodes", [])
    most = max((int(node.get("attempt", 1)) for node in nodes), default=1)
    names = {order_id(body["id"], "", attempt).partition(":")[0] for attempt in range(1, most + 1)}
    return names, {node["undoes"].partition(":")[0] for node in nodes if node.get("undoes")}


def _releases(body: Mapping[str, Any]) -> set[str]:
    """The rollout's, and each node's own: an undo takes nodes to what each ran before."""
    found = {body.get("release"), *(node.get("release") for node in body.get("nodes", []))}
    return {each for each in found if isinstance(each, str)}
