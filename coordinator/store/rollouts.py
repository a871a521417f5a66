"""What the engine writes: plans, rollouts with compare-and-set, and rollbacks by release. Each write is one
transaction, so that a coordinator that dies in between has either begun or it has not."""

from __future__ import annotations

from collections import Counter

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
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.store.database import Database
from coordinator.store.settling import answered_by
from coordinator.store.tables import history, metadata, rollouts
from shared.errors import ConflictError
from shared.failpoint import fail_point
from shared.rollout import LIVE, NodeState, Rollout, RolloutKind, Unblocked
from shared.rolloutplan import Plan
from shared.wire import Wire

PLANS_FOR_S = 3600.0
MOST_PLANS = 500
"""That no rollout follows: the oldest go first."""

plans = Table(
    "plans",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("sha256", String(64), nullable=False),
    Column("made", Float, nullable=False),
    Column("rollout", String(32), nullable=False, default=""),
    Column("body", JSON, nullable=False),
    Index("plans_by_hash", "sha256"),
)

rollbacks = Table(
    "rollbacks",
    metadata,
    Column("order_id", String(64), primary_key=True),
    Column("release", String(64), nullable=False),
    Column("node", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Index("rollbacks_by_release", "release"),
)


class RolloutStore:
    """Keeps in memory what `rollbacks` has read, and is therefore the only one that writes them."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._rollbacks: dict[str, int] | None = None

    async def keep_plan(self, plan: Plan, now: float) -> None:
        """Plans that nothing followed are forgotten after an hour."""
        async with self._db.write() as db:
            unused = plans.c.rollout == ""
            newest = (
                select(plans.c.id).where(unused).order_by(plans.c.id.desc()).limit(MOST_PLANS - 1)
            )
            old = (plans.c.made < now - PLANS_FOR_S) | plans.c.id.not_in(newest)
            await db.execute(delete(plans).where(unused, old))
            await db.execute(
                insert(plans).values(
                    sha256=plan.sha256, made=now, rollout="", body=plan.model_dump(mode="json")
                )
            )
            answered_by(plan)

    async def plan(self, sha256: str, now: float) -> Plan | None:
        """The last one whose hash begins so, of those that were made within the hour. Raises ConflictError where
        plans of several hashes do."""
        named = plans.c.sha256.startswith(sha256, autoescape=True)
        wanted = select(plans.c.sha256, plans.c.body).where(
            named, plans.c.made >= now - PLANS_FOR_S
        )
        async with self._db.read() as db:
            rows = (await db.execute(wanted.order_by(plans.c.id.desc()).limit(MOST_PLANS))).all()
        if len({row.sha256 for row in rows}) > 1:
            raise ConflictError(f"several plans begin with {sha256}", remedy="name the whole hash")
        return Plan.model_validate(rows[0].body) if rows else None

    async def plan_of(self, rollout: str) -> Plan | None:
        async with self._db.read() as db:
            body = await db.scalar(select(plans.c.body).where(plans.c.rollout == rollout))
        return None if body is None else Plan.model_validate(body)

    async def add(self, rollout: Rollout, plan: Plan) -> None:
        """With the plan that it follows. Raises ConflictError while another is running, paused or aborting."""
        async with self._db.write() as db:
            await _check_alone(db, rollout.id)
            await db.execute(
                insert(rollouts).values(
                    id=rollout.id,
                    created=rollout.created,
                    state=rollout.state.value,
                    generation=1,
                    body=rollout.model_dump(mode="json"),
                )
            )
            await db.execute(
                insert(plans).values(
                    sha256=plan.sha256,
                    made=rollout.created,
                    rollout=rollout.id,
                    body=plan.model_dump(mode="json"),
                )
            )
            began = f"{rollout.kind}, {rollout.strategy}: {rollout.label}"
            await _note(db, rollout.id, "", rollout.state, began, rollout.set_by, rollout.created)
            answered_by(rollout)

    async def save(
        self,
        before: Rollout,
        after: Rollout,
        generation: int,
        now: float,
        who: str = "",
        answer: Wire | None = None,
    ) -> bool:
        """Compare-and-set on the generation. Every change of state and every operator's word goes into the history, and
        rollbacks are counted. What ends a rollout comes after what became of its nodes. `answer` is
        what a request is answered with that asked for something else than the rollout.
        Raises ConflictError when it would run beside another."""
        async with self._db.write() as db:
            if after.state in LIVE and before.state not in LIVE:
                await _check_alone(db, after.id)
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
            said = after.state is not before.state or (who and after.reason != before.reason)
            if said and after.ended is None:
                await _note(db, after.id, "", after.state, after.reason, who, now)
            if any(node.state is NodeState.ROLLED_BACK for node in after.nodes):
                self._rollbacks = None
            await _note_nodes(db, before, after, who, now)
            if said and after.ended is not None:
                await _note(db, after.id, "", after.state, after.reason, who, now)
            answered_by(answer or after)
            fail_point("rollout.saving")
        fail_point("rollout.saved")
        return True

    async def rollbacks(self) -> dict[str, int]:
        """By release, since it was last allowed again."""
        if self._rollbacks is None:
            async with self._db.read() as db:
                rows = (await db.execute(select(rollbacks.c.release))).scalars()
                self._rollbacks = dict(Counter(rows))
        return dict(self._rollbacks)

    async def unblock(self, release: str) -> int:
        """Forget the rollbacks of a release. Returns how many there were."""
        async with self._db.write() as db:
            self._rollbacks = None
            done = await db.execute(delete(rollbacks).where(rollbacks.c.release == release))
            answered_by(Unblocked(release=release, forgotten=done.rowcount))
            return int(done.rowcount)


async def _check_alone(db: AsyncConnection, but: str) -> None:
    live = [state.value for state in LIVE]
    found = (
        await db.execute(
            select(rollouts.c.id, rollouts.c.state).where(
                rollouts.c.state.in_(live), rollouts.c.id != but
            )
        )
    ).first()
    if found is not None:
        word = "still running" if found.state == "running" else found.state
        raise ConflictError(
            f"rollout {found.id} is {word}",
            remedy="watch it with: rollcall rollout watch; or end it: rollcall rollout abort",
        )


async def _note_nodes(
    db: AsyncConnection, before: Rollout, after: Rollout, who: str, now: float
) -> None:
    states = {node.name: (node.state, node.attempt) for node in before.nodes}
    for node in after.nodes:
        if states.get(node.name) == (node.state, node.attempt):
            continue
        await _note(db, after.id, node.name, node.state, node.reason, who, now)
        counts = after.kind is RolloutKind.UPGRADE and not node.withdrawn
        if node.state is NodeState.ROLLED_BACK and counts:
            row = {
                "order_id": node.order,
                "release": node.release or after.release,
                "node": node.name,
                "at": now,
                "reason": node.reason,
            }
            await db.execute(upsert(rollbacks).on_conflict_do_nothing(), [row])


async def _note(
    db: AsyncConnection, rollout: str, node: str, state: str, reason: str, who: str, now: float
) -> None:
    await db.execute(
        insert(history).values(
            at=now, rollout=rollout, node=node, state=str(state), reason=reason, who=who
        )
    )
