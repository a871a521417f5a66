"""What the coordinator asks of its tables. Wire models go in and come out; no SQL leaves this file."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from coordinator.store.database import Database
from coordinator.store.tables import (
    history,
    join_tokens,
    messages,
    meta,
    nodes,
    releases,
    rollouts,
)
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.keys import PublicKey
from shared.messages import Message
from shared.release import Release
from shared.report import NodeReport
from shared.rollout import Rollout, RolloutState
from shared.roster import Role, RosterNode


@dataclass(frozen=True)
class StoredNode:
    name: str
    role: Role
    joined: float
    heard: float | None
    report: NodeReport | None


@dataclass(frozen=True)
class StoredMessage:
    key: str
    origin: str
    type: str
    ref: str
    raw: str


class Queries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def next_number(self, key: str) -> int:
        """A counter that never repeats, also not after a restart."""
        async with self._db.write() as db:
            before = await db.scalar(select(meta.c.value).where(meta.c.key == key))
            number = int(before or 0) + 1
            statement = upsert(meta).values(key=key, value=str(number))
            await db.execute(
                statement.on_conflict_do_update(index_elements=["key"], set_={"value": str(number)})
            )
            return number

    async def add_token(self, secret_sha256: str, expires: float) -> None:
        async with self._db.write() as db:
            await db.execute(
                insert(join_tokens).values(secret_sha256=secret_sha256, expires=expires)
            )

    async def join(
        self, secret_sha256: str, name: str, role: Role, key: PublicKey, now: float
    ) -> None:
        """Use up the token and add the node, both or neither. A node that did not get its answer may ask
        again with the same token, name and key.

        Raises UntrustedError for a token that is unknown, used or expired, ConflictError for a name or
        a key that is taken: one key under two names would let one node speak for another.
        """
        async with self._db.write() as db:
            row = (
                await db.execute(
                    select(join_tokens).where(join_tokens.c.secret_sha256 == secret_sha256)
                )
            ).one_or_none()
            taken = (
                await db.execute(
                    select(nodes.c.name, nodes.c.key).where(
                        or_(nodes.c.name == name, nodes.c.key == key.ed25519)
                    )
                )
            ).all()
            again = [(name, key.ed25519)] == [tuple(each) for each in taken]
            if row is not None and again and row.used_by == name:
                return
            if row is None or row.used_by is not None or row.expires < now:
                raise UntrustedError(
                    "this join token is unknown, used or expired",
                    remedy="make a new one with: rollcall node token create",
                )
            if taken:
                raise ConflictError(
                    f"a node {taken[0].name!r} has joined already with this name or key",
                    remedy="choose another name",
                )
            await db.execute(
                update(join_tokens)
                .where(join_tokens.c.secret_sha256 == secret_sha256)
                .values(used_by=name)
            )
            await db.execute(
                insert(nodes).values(
                    name=name, role=role.value, key=key.ed25519, joined=now, revoked=False
                )
            )

    async def roster_nodes(self) -> list[RosterNode]:
        async with self._db.read() as db:
            rows = (await db.execute(select(nodes).order_by(nodes.c.name))).all()
        return [
            RosterNode(
                name=row.name,
                role=Role(row.role),
                key=PublicKey(ed25519=row.key),
                revoked=row.revoked,
            )
            for row in rows
        ]

    async def nodes(self) -> list[StoredNode]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(nodes).where(nodes.c.revoked.is_(False)).order_by(nodes.c.name)
                )
            ).all()
        return [
            StoredNode(
                row.name,
                Role(row.role),
                row.joined,
                row.heard,
                None if row.report is None else NodeReport.model_validate(row.report),
            )
            for row in rows
        ]

    async def hear(self, report: NodeReport, now: float) -> None:
        async with self._db.write() as db:
            await db.execute(
                update(nodes)
                .where(nodes.c.name == report.node)
                .values(heard=now, report=report.model_dump(mode="json"))
            )

    async def keep_messages(self, found: list[Message], now: float) -> None:
        if not found:
            return
        rows = [
            {
                "sha256": message.sha256,
                "key": message.key,
                "origin": message.payload.origin,
                "type": message.payload.body.type,
                "ref": message.ref,
                "raw": message.raw,
                "at": now,
            }
            for message in found
        ]
        async with self._db.write() as db:
            await db.execute(upsert(messages).on_conflict_do_nothing(), rows)

    async def messages_of(self, *types: str) -> list[StoredMessage]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(messages).where(messages.c.type.in_(types)).order_by(messages.c.at)
                )
            ).all()
        return [StoredMessage(row.key, row.origin, row.type, row.ref, row.raw) for row in rows]

    async def add_release(self, release: Release) -> None:
        """Raises ConflictError when the name belongs to other content."""
        async with self._db.write() as db:
            known = await db.scalar(
                select(releases.c.id).where(releases.c.name == release.manifest.name)
            )
            if known is not None and known != release.id:
                raise ConflictError(
                    f"a release {release.manifest.name!r} exists with other content",
                    remedy="releases are frozen; choose a new name",
                )
            await db.execute(
                upsert(releases)
                .values(
                    id=release.id,
                    name=release.manifest.name,
                    envelope=release.envelope,
                    created=release.manifest.created,
                )
                .on_conflict_do_nothing()
            )

    async def envelopes(self) -> list[str]:
        async with self._db.read() as db:
            rows = await db.execute(select(releases.c.envelope).order_by(releases.c.created))
            return list(rows.scalars())

    async def envelope(self, release: str) -> str:
        async with self._db.read() as db:
            found = await db.scalar(select(releases.c.envelope).where(releases.c.id == release))
        if found is None:
            raise NotFoundError(f"no release {release[:12]}")
        return str(found)

    async def add_rollout(self, rollout: Rollout) -> None:
        """Raises ConflictError while another rollout runs: one at a time."""
        async with self._db.write() as db:
            running = await db.scalar(
                select(rollouts.c.id).where(rollouts.c.state == RolloutState.RUNNING.value)
            )
            if running is not None:
                raise ConflictError(
                    f"rollout {running} is still running",
                    remedy="watch it with: rollcall rollout watch",
                )
            await db.execute(
                insert(rollouts).values(
                    id=rollout.id,
                    created=rollout.created,
                    state=rollout.state.value,
                    generation=1,
                    body=rollout.model_dump(mode="json"),
                )
            )

    async def last_rollout(self) -> tuple[Rollout, int] | None:
        found = await self.recent_rollouts(1)
        return found[0] if found else None

    async def recent_rollouts(self, limit: int) -> list[tuple[Rollout, int]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(select(rollouts).order_by(rollouts.c.created.desc()).limit(limit))
            ).all()
        return [(Rollout.model_validate(row.body), row.generation) for row in rows]

    async def save_rollout(
        self, before: Rollout, after: Rollout, generation: int, now: float
    ) -> bool:
        """Compare-and-set on the generation; every change of a node's state goes into the history."""
        async with self._db.write() as db:
            done = await db.execute(
                update(rollouts)
                .where(rollouts.c.id == after.id, rollouts.c.generation == generation)
                .values(
                    state=after.state.value,
                    generation=generation + 1,
                    body=after.model_dump(mode="json"),
                )
            )
            if done.rowcount != 1:
                return False
            states = {node.name: node.state for node in before.nodes}
            changed = [
                {
                    "at": now,
                    "rollout": after.id,
                    "node": node.name,
                    "state": node.state.value,
                    "reason": node.reason,
                }
                for node in after.nodes
                if states.get(node.name) is not node.state
            ]
            if changed:
                await db.execute(insert(history), changed)
            return True

    async def forget_tokens(self, now: float) -> None:
        async with self._db.write() as db:
            await db.execute(delete(join_tokens).where(join_tokens.c.expires < now - 86400))

    async def history_of(self, rollout: str) -> list[dict[str, object]]:
        async with self._db.read() as db:
            rows = (
                await db.execute(
                    select(history).where(history.c.rollout == rollout).order_by(history.c.id)
                )
            ).all()
        return [
            {"at": row.at, "node": row.node, "state": row.state, "reason": row.reason}
            for row in rows
        ]
