"""Upgrades that have ended, one row each, and which version each node's agent had when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, Column, Float, String, Table, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import metadata, rollouts
from shared.nodes import NodeUpgrade

node_upgrades = Table(
    "node_upgrades",
    metadata,
    Column("node", String(32), primary_key=True),
    Column("order", String(64), primary_key=True),
    Column("began", Float, primary_key=True),
    Column("ended", Float),
    Column("body", JSON, nullable=False),
)

agent_versions = Table(
    "agent_versions",
    metadata,
    Column("node", String(32), primary_key=True),
    Column("at", Float, primary_key=True),
    Column("version", String(64), nullable=False),
)


class UpgradeQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def note_agent(self, node: str, version: str, at: float) -> None:
        """Only what is another version than the last one."""
        newest = (
            select(agent_versions.c.version)
            .where(agent_versions.c.node == node)
            .order_by(agent_versions.c.at.desc())
            .limit(1)
        )
        async with self._db.write() as db:
            if await db.scalar(newest) != version:
                row = {"node": node, "at": at, "version": version}
                await db.execute(upsert(agent_versions).values(**row).on_conflict_do_nothing())

    async def newest_agents(self) -> dict[str, str]:
        """The last known version of each node's agent."""
        newest = func.max(agent_versions.c.at)
        wanted = select(agent_versions.c.node, agent_versions.c.version, newest)
        async with self._db.read() as db:
            rows = (await db.execute(wanted.group_by(agent_versions.c.node))).all()
        return {row.node: row.version for row in rows}

    async def newest(self) -> list[NodeUpgrade]:
        """The last one of each node. SQLite takes the other columns from the row that has the maximum."""
        wanted = select(node_upgrades.c.body, func.max(node_upgrades.c.began))
        async with self._db.read() as db:
            rows = (await db.execute(wanted.group_by(node_upgrades.c.node))).all()
        return [NodeUpgrade.model_validate(row.body) for row in rows]

    async def agent_at(self, node: str, at: float) -> str | None:
        """The version that this node's agent had then; None before the first that is known."""
        wanted = (
            select(agent_versions.c.version)
            .where(agent_versions.c.node == node, agent_versions.c.at <= at)
            .order_by(agent_versions.c.at.desc())
            .limit(1)
        )
        async with self._db.read() as db:
            found: str | None = await db.scalar(wanted)
            return found

    async def rollout(self, id_: str) -> Mapping[str, Any]:
        """As it is stored; empty when there is none, or it is from before a backup that was put back."""
        async with self._db.read() as db:
            body = await db.scalar(select(rollouts.c.body).where(rollouts.c.id == id_))
        return body or {}

    async def keep(self, upgrade: NodeUpgrade) -> None:
        """In place of what was known of it: a finished upgrade may be rolled back later."""
        body = upgrade.model_dump(mode="json")
        values = {"ended": upgrade.ended, "body": body}
        row = {"node": upgrade.node, "order": upgrade.order, "began": upgrade.began, **values}
        statement = upsert(node_upgrades).values(**row)
        async with self._db.write() as db:
            await db.execute(
                statement.on_conflict_do_update(
                    index_elements=["node", "order", "began"], set_=values
                )
            )

    async def of(self, node: str, limit: int) -> list[NodeUpgrade]:
        """Newest first."""
        wanted = (
            select(node_upgrades.c.body)
            .where(node_upgrades.c.node == node)
            .order_by(node_upgrades.c.began.desc())
            .limit(limit)
        )
        async with self._db.read() as db:
            rows = (await db.execute(wanted)).scalars().all()
        return [NodeUpgrade.model_validate(body) for body in rows]
