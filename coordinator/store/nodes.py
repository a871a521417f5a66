"""Nodes and the tokens that let them join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Database
from coordinator.store.tables import join_tokens, nodes
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.fleet import JoinRequest
from shared.keys import PublicKey
from shared.report import NodeReport
from shared.roster import Role, RosterNode

FORGET_TOKENS_S = 86400.0


@dataclass(frozen=True)
class StoredNode:
    name: str
    role: Role
    site: str
    joined: float
    heard: float | None
    report: NodeReport | None


@dataclass(frozen=True)
class TokenTerms:
    """What a join token fixes beforehand; None leaves it to the joiner. `replaces` lets the node that
    is called `name` come back with new keys after a re-install."""

    expires: float
    name: str | None = None
    role: Role | None = None
    site: str | None = None
    replaces: bool = False


class NodeQueries:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add_token(self, secret_sha256: str, terms: TokenTerms, now: float) -> None:
        """Raises NotFoundError when it is for a node's return and there is no such node."""
        async with self._db.write() as db:
            expired = join_tokens.c.expires < now - FORGET_TOKENS_S
            await db.execute(delete(join_tokens).where(expired))
            if terms.replaces and await _node(db, terms.name or "") is None:
                raise NotFoundError(f"no node {terms.name!r} has joined")
            await db.execute(
                insert(join_tokens).values(
                    secret_sha256=secret_sha256,
                    expires=terms.expires,
                    name=terms.name,
                    role=None if terms.role is None else terms.role.value,
                    site=terms.site,
                    replaces=terms.replaces,
                )
            )

    async def join(self, secret_sha256: str, asked: JoinRequest, now: float) -> None:
        """Use up the token and add the node, both or neither. A node that did not get its answer may ask
        again with the same token, name and key.

        Raises UntrustedError for a token that is unknown, used, expired or meant for something else,
        ConflictError for a name or a key that is taken: one key under two names would let one node
        speak for another.
        """
        async with self._db.write() as db:
            token = (
                await db.execute(
                    select(join_tokens).where(join_tokens.c.secret_sha256 == secret_sha256)
                )
            ).one_or_none()
            known = await _node(db, asked.name)
            same_key = known is not None and known.key == asked.message_key.ed25519
            if token is not None and token.used_by == asked.name and same_key:
                return
            if token is None or token.used_by is not None or token.expires < now:
                raise UntrustedError(
                    "this join token is unknown, used or expired",
                    remedy="make a new one with: rollcall node token create",
                )
            values = _agreed(token, asked, known, now)
            await _check_free(db, asked, returning=bool(token.replaces))
            await db.execute(
                update(join_tokens)
                .where(join_tokens.c.secret_sha256 == secret_sha256)
                .values(used_by=asked.name)
            )
            if known is None:
                await db.execute(insert(nodes).values(name=asked.name, **values))
            else:
                await db.execute(update(nodes).where(nodes.c.name == asked.name).values(**values))

    async def revoke(self, name: str) -> bool:
        """False when it was revoked already. Raises NotFoundError for a node that never joined."""
        async with self._db.write() as db:
            row = await _node(db, name)
            if row is None:
                raise NotFoundError(
                    f"no node {name!r} has joined", remedy="see: rollcall node list"
                )
            await db.execute(update(nodes).where(nodes.c.name == name).values(revoked=True))
            return not row.revoked

    async def set_key(self, name: str, key: PublicKey) -> None:
        """Raises ConflictError when another node has this key."""
        async with self._db.write() as db:
            taken = await db.scalar(
                select(nodes.c.name).where(nodes.c.key == key.ed25519, nodes.c.name != name)
            )
            if taken is not None:
                raise ConflictError(f"node {taken!r} has this key")
            await db.execute(update(nodes).where(nodes.c.name == name).values(key=key.ed25519))

    async def roster_nodes(self) -> list[RosterNode]:
        async with self._db.read() as db:
            rows = (await db.execute(select(nodes).order_by(nodes.c.name))).all()
        return [
            RosterNode(
                name=row.name,
                role=Role(row.role),
                site=row.site,
                key=PublicKey(ed25519=row.key),
                joined=row.joined,
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
                row.site,
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


def _agreed(token: Any, asked: JoinRequest, known: Any, now: float) -> dict[str, Any]:
    """The node's row, where token and joiner agree; a node that comes back keeps its role and site
    unless they say otherwise. Raises UntrustedError naming what differs."""
    for what in ("name", "role", "site"):
        fixed, wanted = getattr(token, what), getattr(asked, what)
        if fixed is not None and wanted is not None and fixed != wanted:
            raise UntrustedError(
                f"this join token is for {what} {fixed!r}, not {wanted!r}",
                remedy=f"join with --{what} {fixed}, or make another token",
            )
    return {
        "role": token.role or asked.role or (known.role if known else Role.STABLE.value),
        "site": token.site or asked.site or (known.site if known else ""),
        "key": asked.message_key.ed25519,
        "joined": now,
        "revoked": False,
        "heard": None,
        "report": None,
    }


async def _check_free(db: AsyncConnection, asked: JoinRequest, *, returning: bool) -> None:
    taken = (
        await db.execute(
            select(nodes.c.name).where(
                or_(nodes.c.name == asked.name, nodes.c.key == asked.message_key.ed25519)
            )
        )
    ).scalars()
    for name in taken:
        if name == asked.name and returning:
            continue
        raise ConflictError(
            f"a node {name!r} has joined already with this name or key",
            remedy="choose another name; for a node that was installed anew make a token with "
            f"--rejoin {name}",
        )


async def _node(db: AsyncConnection, name: str) -> Any:
    return (await db.execute(select(nodes).where(nodes.c.name == name))).one_or_none()
