"""Operators' tokens in the database: their hashes, never their secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, or_, select, update

from coordinator.operators import OperatorRole, OperatorToken
from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import operator_tokens as tokens
from shared.errors import ConflictError, NotFoundError

USE_STEP_S = 60.0
"""How exact `last_used` is: a write at every request would make readers wait for the disk."""


@dataclass(frozen=True)
class StoredToken:
    token: OperatorToken
    secret_sha256: str


class Operators:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, token: OperatorToken, secret_sha256: str) -> None:
        values = token.model_dump(mode="json")
        async with self._db.write() as db:
            await db.execute(insert(tokens).values(**values, secret_sha256=secret_sha256))

    async def find(self, token_id: str) -> StoredToken | None:
        async with self._db.read() as db:
            row = (await db.execute(select(tokens).where(tokens.c.id == token_id))).one_or_none()
        return None if row is None else StoredToken(_token(row), row.secret_sha256)

    async def all(self) -> list[OperatorToken]:
        async with self._db.read() as db:
            rows = (await db.execute(select(tokens).order_by(tokens.c.created, tokens.c.id))).all()
        return [_token(row) for row in rows]

    async def used(self, token: OperatorToken, now: float) -> None:
        """Note the use, at most once in `USE_STEP_S`."""
        if token.last_used is not None and 0 <= now - token.last_used < USE_STEP_S:
            return
        async with self._db.write() as db:
            await db.execute(update(tokens).where(tokens.c.id == token.id).values(last_used=now))

    async def revoke(self, token_id: str, now: float) -> OperatorToken:
        """Final; a second time changes nothing.

        Raises NotFoundError, and ConflictError for the last admin's token that is still valid: nobody
        could make another.
        """
        async with self._db.write() as db:
            row = (await db.execute(select(tokens).where(tokens.c.id == token_id))).one_or_none()
            if row is None:
                raise NotFoundError(
                    f"no operator token {token_id}", remedy="see: rollcall operator token list"
                )
            if row.revoked is not None:
                return _token(row)
            others = select(func.count()).where(_valid_admin(now), tokens.c.id != token_id)
            if row.role == OperatorRole.ADMIN.value and not await db.scalar(others):
                raise ConflictError(
                    f"{token_id} is the last valid admin token",
                    remedy="make another first: rollcall operator token create --role admin",
                )
            await db.execute(update(tokens).where(tokens.c.id == token_id).values(revoked=now))
            revoked = _token(row).model_copy(update={"revoked": now})
            answered_by(revoked)
            return revoked

    async def has_admin(self, now: float) -> bool:
        async with self._db.read() as db:
            return bool(await db.scalar(select(func.count()).where(_valid_admin(now))))


def _valid_admin(now: float) -> ColumnElement[bool]:
    return and_(
        tokens.c.role == OperatorRole.ADMIN.value,
        tokens.c.revoked.is_(None),
        or_(tokens.c.expires.is_(None), tokens.c.expires > now),
    )


def _token(row: Row[Any]) -> OperatorToken:
    return OperatorToken.model_validate(row._asdict())
