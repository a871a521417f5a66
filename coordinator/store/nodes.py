"""Nodes and the tokens that let them join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Text, delete, insert, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import heartbeats, join_tokens, nodes
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.fleet import JoinRequest
from shared.keys import PublicKey
from shared.nodes import AttributesChange, AttributesRequest, NodeAttributes, Revoked
from shared.report import NodeReport
from shared.roster import NodeClass, Role, RosterNode

FORGET_TOKENS_S = 86400.0
NO_REPORT = "null"
"""As SQLAlchemy writes None into a column of JSON."""
MAX_PARSED = 1024
"""Reports that are kept parsed: those of the fleets that are looked at most."""
_HEARD = (
    "INSERT INTO heartbeats (name, at) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET at = excluded.at"
)
_SAID = "UPDATE nodes SET report = ? WHERE name = ?"
"""Both in SQLite's words: they are what every heartbeat waits for."""


@dataclass(frozen=True)
class StoredNode:
    name: str
    about: NodeAttributes
    joined: float
    heard: float | None
    raw: str | None
    """Its last report as JSON: parsed, it takes seven times as much memory."""

    def parsed(self) -> NodeReport | None:
        """Its last report; made anew each time."""
        return None if self.raw is None else NodeReport.model_validate_json(self.raw)

    def briefly(self) -> NodeReport | None:
        """The same without what is only drawn for people, which is most of it: trends, and checks that pass. Of the
        fleets that are looked at most it is made once."""
        return None if self.raw is None else _briefly(self.raw)


class Beat(NamedTuple):
    """A node's word. `report` is a NodeReport as JSON; None where the node said the same as before."""

    name: str
    at: float
    report: str | None


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
    """Keeps in memory what `nodes` has read, and is therefore the only one that writes nodes. `_known` is changed
    while a transaction is open alone, of which there is one at a time."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._known: dict[str, StoredNode] | None = None
        """Live ones, in the order of their names."""

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

    async def join(self, secret_sha256: str, asked: JoinRequest, now: float) -> bool:
        """Use up the token and add the node, both or neither. A node that did not get its answer may ask
        again with the same token, name and key: False, for nothing is changed.

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
                return False
            if token is None or token.used_by is not None or token.expires < now:
                raise UntrustedError(
                    "this join token is unknown, used or expired",
                    remedy="make a new one with: rollcall node token create",
                )
            values = _agreed(token, asked, known, now)
            await _check_free(db, asked, returning=bool(token.replaces))
            self._known = None
            await db.execute(
                update(join_tokens)
                .where(join_tokens.c.secret_sha256 == secret_sha256)
                .values(used_by=asked.name)
            )
            await db.execute(delete(heartbeats).where(heartbeats.c.name == asked.name))
            if known is None:
                await db.execute(insert(nodes).values(name=asked.name, **values))
            else:
                await db.execute(update(nodes).where(nodes.c.name == asked.name).values(**values))
            answered_by(None)
            return True

    async def revoke(self, name: str, epoch: int) -> bool:
        """False when it was revoked already. `epoch` is that of the roster that will say so. Raises NotFoundError for a
        node that never joined."""
        async with self._db.write() as db:
            row = await _node(db, name)
            if row is None:
                raise NotFoundError(
                    f"no node {name!r} has joined", remedy="see: rollcall node list"
                )
            self._known = None
            if row.revoked:
                return False
            await db.execute(update(nodes).where(nodes.c.name == name).values(revoked=True))
            answered_by(Revoked(name=name, epoch=epoch, again=False))
            return True

    async def set_key(self, name: str, key: PublicKey) -> None:
        """Raises ConflictError when another node has this key."""
        async with self._db.write() as db:
            taken = await db.scalar(
                select(nodes.c.name).where(nodes.c.key == key.ed25519, nodes.c.name != name)
            )
            if taken is not None:
                raise ConflictError(f"node {taken!r} has this key")
            await db.execute(update(nodes).where(nodes.c.name == name).values(key=key.ed25519))
            answered_by(None)

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
        if self._known is None:
            async with self._db.read() as db:
                columns = [each for each in nodes.c if each is not nodes.c.report]
                raw = type_coerce(nodes.c.report, Text).label("raw")
                asked = select(*columns, raw, heartbeats.c.at.label("heard")).outerjoin(
                    heartbeats, heartbeats.c.name == nodes.c.name
                )
                live = asked.where(nodes.c.revoked.is_(False)).order_by(nodes.c.name)
                rows = (await db.execute(live)).all()
                self._known = {row.name: _stored(row) for row in rows}
        return list(self._known.values())

    async def attributes(self, name: str) -> NodeAttributes:
        """Raises NotFoundError for a node that is not there."""
        async with self._db.read() as db:
            return _attributes(await _live(db, name))

    async def describe(self, name: str, asked: AttributesRequest) -> AttributesChange:
        """Written unless it is a dry run. Raises NotFoundError for a node that is not there, BadInputError for more
        labels than a node may have."""
        async with self._db.write() as db:
            before = _attributes(await _live(db, name))
            after = changed_by(before, asked)
            values = after.model_dump(mode="json")
            old = before.model_dump(mode="json")
            changed = [field for field in values if values[field] != old[field]]
            change = AttributesChange(name=name, before=before, after=after, changed=changed)
            if changed and not asked.dry_run:
                self._known = None
                values["class"] = values.pop("class_")
                await db.execute(update(nodes).where(nodes.c.name == name).values(**values))
                answered_by(change)
        return change

    async def hear(self, beats: Sequence[Beat]) -> None:
        """Of one node the last counts. All are kept, or none is."""
        try:
            async with self._db.write() as db:
                last = {beat.name: beat.at for beat in beats}
                await db.exec_driver_sql(_HEARD, list(last.items()))
                said = {beat.name: beat.report for beat in beats if beat.report is not None}
                if said:
                    await db.exec_driver_sql(_SAID, [(raw, name) for name, raw in said.items()])
                self._note(last, said)
        except BaseException:
            self._known = None
            raise

    def _note(self, last: dict[str, float], said: dict[str, str]) -> None:
        if self._known is None:
            return
        for name, at in last.items():
            if (node := self._known.get(name)) is not None:
                self._known[name] = StoredNode(
                    name, node.about, node.joined, at, said.get(name, node.raw)
                )


def _stored(row: Any) -> StoredNode:
    raw = None if row.raw == NO_REPORT else row.raw
    return StoredNode(row.name, _attributes(row), row.joined, row.heard, raw)


@lru_cache(maxsize=MAX_PARSED)
def _briefly(raw: str) -> NodeReport:
    report = NodeReport.model_validate_json(raw)
    readiness = report.readiness.model_copy(update={"checks": []})
    return report.model_copy(update={"trends": [], "readiness": readiness})


def changed_by(before: NodeAttributes, asked: AttributesRequest) -> NodeAttributes:
    """Raises BadInputError for more labels than a node may have."""
    labels = {**before.labels, **asked.labels}
    said = asked.model_dump(exclude={"labels", "dry_run"}, exclude_none=True)
    kept = {key: value for key, value in labels.items() if value is not None}
    return NodeAttributes.from_value({**before.model_dump(), **said, "labels": kept})


def _attributes(row: Any) -> NodeAttributes:
    return NodeAttributes(
        role=Role(row.role),
        class_=NodeClass(getattr(row, "class")),
        site=row.site,
        provider=row.provider,
        region=row.region,
        address=row.address,
        labels=row.labels,
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


async def _live(db: AsyncConnection, name: str) -> Any:
    """Raises NotFoundError for a node that is not there, or was revoked."""
    row = await _node(db, name)
    if row is None or row.revoked:
        raise NotFoundError(f"no node {name!r} has joined", remedy="see: rollcall node list")
    return row


async def _node(db: AsyncConnection, name: str) -> Any:
    return (await db.execute(select(nodes).where(nodes.c.name == name))).one_or_none()
