"""The only writer of rollouts: decides on every piece of news and once a second, with compare-and-set."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout import verbs
from coordinator.rollout.begin import rollout_of
from coordinator.rollout.decide import decide
from coordinator.rollout.facts import Fleet
from coordinator.rollout.plan import plan_undo, plan_upgrade
from coordinator.rollout.windows import read_zones
from coordinator.store.queries import Queries
from coordinator.store.rollouts import RolloutStore
from shared.clock import Clock, sleep_until
from shared.errors import ConflictError, NotFoundError, RollcallError, UntrustedError, UsageError
from shared.fleetsettings import FleetSettings
from shared.protocol import ProtocolError, ProtocolRange
from shared.release import Release
from shared.report import Target
from shared.rollout import (
    NodeState,
    Rollout,
    RolloutKind,
    RolloutNode,
    RolloutRequest,
    RolloutState,
    VerbRequest,
)
from shared.rolloutplan import Plan, Refusal, what_changed
from shared.wire import Wire, short

log = structlog.get_logger()

TICK_S = 1.0
LEAST_S = 0.01
REST, PRESSED_REST = 3.0, 1.0
"""Between two looks, and how many times as long as the last one took: a thousand nodes have news all the time, and
each of them waits for answers. The shorter rest is for news that a rollout is likely to wait for."""
TRIES = 5
ENDED = (RolloutState.HALTED, RolloutState.ABORTED, RolloutState.SUCCEEDED)

Settings = Callable[[], Awaitable[FleetSettings]]
FindRelease = Callable[[str], Release]
"""By id, prefix or name; raises NotFoundError with what there is."""
Widen = Callable[[Rollout, Fleet, float], Awaitable[Mapping[str, str]]]
"""Takes the next steps of traffic that may be taken now. Returns the nodes that are not at the last one yet, each
with its share and what it waits for."""
Beside = Callable[[Fleet], Awaitable[Fleet]]
"""The facts with what other parts of the coordinator know."""
Change = Callable[[Rollout, Fleet, float], Rollout]
Answer = Callable[[Rollout], Wire]
"""What a request is answered with that changes a rollout and asks for something else."""


@dataclass(frozen=True)
class Sources:
    """What other parts of the coordinator know and do for rollouts."""

    find_release: FindRelease
    settings: Settings
    widen: Widen
    beside: Beside


class Engine:
    """Holds nothing but a copy of the last rollout: a restarted coordinator goes on from its tables."""

    def __init__(
        self,
        queries: Queries,
        store: RolloutStore,
        fleet: FleetState,
        notifier: Notifier,
        clock: Clock,
        speaks: ProtocolRange,
        sources: Sources,
    ) -> None:
        self._queries, self._store, self._fleet = queries, store, fleet
        self._notifier, self._clock, self._speaks = notifier, clock, speaks
        self._sources = sources
        self._last: tuple[Rollout, int] | None = None
        self._is_read = False
        self._places: tuple[Rollout, dict[str, RolloutNode]] | None = None
        self._changing = asyncio.Lock()
        self.looked = clock.monotonic()
        """When the loop last came round."""

    async def run(self) -> None:
        generation = 0
        while True:
            generation = await self._notifier.wait_beyond(generation, TICK_S)
            self._notifier.pressing.clear()
            began = self._clock.monotonic()
            await self.step()
            self.looked = self._clock.monotonic()
            took = self.looked - began
            await self._clock.sleep(max(LEAST_S, PRESSED_REST * took))
            rest = (REST - PRESSED_REST) * took
            await sleep_until(self._notifier.pressing, self._clock, rest)

    async def facts(self) -> Fleet:
        """The fleet with everything else that a decision rests on."""
        settings = await self._sources.settings()
        if settings.windows:
            await asyncio.to_thread(read_zones, settings)
        fleet = await self._fleet.fleet()
        fleet = replace(fleet, settings=settings, rollbacks=await self._store.rollbacks())
        return await self._sources.beside(fleet)

    async def last(self) -> tuple[Rollout, int] | None:
        """The newest rollout and its generation. Only this engine writes it, so it is read once."""
        if not self._is_read:
            self._last = await self._queries.last_rollout()
            self._is_read = True
        return self._last

    async def _mine(self, node: str) -> tuple[Rollout, RolloutNode] | None:
        """A node's place in the newest rollout. Every heartbeat asks."""
        found = self._last if self._is_read else await self.last()
        if found is None:
            return None
        rollout = found[0]
        if self._places is None or self._places[0] is not rollout:
            self._places = rollout, {each.name: each for each in rollout.nodes}
        mine = self._places[1].get(node)
        return None if mine is None else (rollout, mine)

    async def step(self) -> None:
        async with self._changing:
            found = await self.last()
            if found is None:
                return
            before, generation = found
            if before.state in ENDED and _settled(before):
                return
            now, facts = self._clock.now(), await self.facts()
            if before.state is RolloutState.RUNNING:
                facts = replace(facts, widening=await self._sources.widen(before, facts, now))
            after = decide(before, facts, now)
            if after == before or not await self._save(before, after, generation, now):
                return
        if after.state is not before.state:
            log.info("rollout", id=after.id, state=after.state, reason=after.reason)
        if not _only_leased(before, after):
            self._notifier.notify(_who_is_told(before, after))

    async def _save(
        self,
        before: Rollout,
        after: Rollout,
        generation: int,
        now: float,
        who: str = "",
        answer: Wire | None = None,
    ) -> bool:
        """Whether it was written. If not, somebody else has: what is known here is read anew."""
        self._last, self._is_read = None, False
        if not await self._store.save(before, after, generation, now, who, answer):
            return False
        self._last, self._is_read = (after, generation + 1), True
        return True

    async def keep(self, asked: RolloutRequest) -> Plan:
        """What would be done, kept for an hour under its hash, to be started by it. Raises as `plan` does."""
        plan = await self.plan(asked)
        await self._store.keep_plan(plan, self._clock.now())
        return plan

    async def plan(self, asked: RolloutRequest) -> Plan:
        """What would be done. Raises UsageError for neither or both of release and undo, NotFoundError for what is
        not there."""
        if (asked.release is None) == (asked.undo is None):
            raise UsageError(
                "a rollout is to a release, or the undo of another: one of the two",
                remedy="rollcall rollout plan RELEASE, or: rollcall rollout plan --undo ROLLOUT",
            )
        now = self._clock.now()
        if asked.release is not None:
            release = self._sources.find_release(asked.release)
            facts = await self.facts()
            return await asyncio.to_thread(plan_upgrade, asked, facts, release, self._speaks, now)
        undone = await self.rollout(asked.undo or "")
        return await asyncio.to_thread(plan_undo, asked, await self.facts(), undone, now)

    async def start(self, sha256: str, who: str) -> Rollout:
        """Begin what was planned, if it would still be the same. Raises NotFoundError for a plan that is not kept any
        more, ConflictError where the plan has changed or is refused."""
        kept = await self._store.plan(sha256, self._clock.now())
        if kept is None:
            raise NotFoundError(
                f"no plan {sha256[:12]} was made within the last hour",
                remedy="make one: rollcall rollout plan",
            )
        now_planned = await self.plan(_asked_again(kept))
        if now_planned.sha256 != kept.sha256:
            changes = "; ".join(what_changed(kept, now_planned)[:10])
            raise ConflictError(
                short(f"the plan is not the one that was shown: {changes}", 1500),
                remedy="look at it again: rollcall rollout plan",
            )
        return await self.begin(now_planned, who)

    async def begin(self, plan: Plan, who: str) -> Rollout:
        """Raises what the first refusal says."""
        if plan.refusals:
            raise refusal_error(plan.refusals)
        now = self._clock.now()
        epoch = await self._queries.next_number("rollout_epoch", int(now * 1000))
        rollout = rollout_of(plan, secrets.token_hex(4), who, now, epoch)
        async with self._changing:
            self._last, self._is_read = None, False
            await self._store.add(rollout, plan)
        log.info("rollout begins", id=rollout.id, kind=rollout.kind, release=rollout.label)
        self._notifier.notify()
        return await self._looked_at(rollout)

    async def rollout(self, id_: str) -> Rollout:
        """Raises NotFoundError."""
        found = await self._queries.rollout(id_)
        if found is None:
            raise NotFoundError(f"no rollout {id_!r}", remedy="see: rollcall rollout history")
        return found

    async def pause(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(id_, lambda r, _, now: verbs.pause(r, who, asked.reason, now), who)

    async def resume(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(
            id_, lambda r, f, now: verbs.resume(r, who, asked.reason, f, now), who
        )

    async def abort(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(id_, lambda r, _, now: verbs.abort(r, who, asked.reason, now), who)

    async def retry(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(
            id_, lambda r, f, now: verbs.retry(r, asked.nodes, who, asked.reason, f, now), who
        )

    async def skip(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(
            id_, lambda r, _, now: verbs.skip(r, asked.nodes, who, asked.reason, now), who
        )

    async def promote(self, id_: str, asked: VerbRequest, who: str) -> Rollout:
        return await self._say(id_, lambda r, _, __: verbs.promote(r, who, asked.reason), who)

    async def claim(
        self, order: str, node: str, eta_s: float, answer: Answer | None = None
    ) -> Rollout:
        """An agent is about to begin an order of the newest rollout. Raises NotFoundError, ConflictError,
        UntrustedError."""
        found = await self._of_order(order)
        return await self._change(
            found.id, lambda r, _, now: verbs.claim(r, order, node, eta_s, now), node, answer
        )

    async def withdraw(
        self, order: str, reason: str, who: str = "", answer: Answer | None = None
    ) -> Rollout:
        """Take one order of the newest rollout back. Raises NotFoundError, ConflictError."""
        found = await self._of_order(order)
        return await self._change(
            found.id, lambda r, _, __: verbs.withdraw(r, order, reason), who, answer
        )

    async def _say(self, id_: str, change: Change, who: str) -> Rollout:
        return await self._looked_at(await self._change(id_, change, who))

    async def _looked_at(self, rollout: Rollout) -> Rollout:
        """As the operator is shown it: with the reason of every node, which the next look finds."""
        await self.step()
        found = await self.last()
        return rollout if found is None or found[0].id != rollout.id else found[0]

    async def _of_order(self, order: str) -> Rollout:
        found = await self.last()
        if found is None or not any(node.order == order for node in found[0].nodes):
            raise NotFoundError(f"no order {order!r} in the newest rollout")
        return found[0]

    async def _change(
        self, id_: str, change: Change, who: str, answer: Answer | None = None
    ) -> Rollout:
        """Only the newest rollout can be changed: what an older one has done, newer ones rest on."""
        for _ in range(TRIES):
            async with self._changing:
                found = await self.last()
                if found is None or found[0].id != id_:
                    older = await self.rollout(id_)
                    raise ConflictError(
                        f"rollout {id_} is {older.state}, and not the newest",
                        remedy="only the newest rollout can be changed",
                    )
                before, generation = found
                now = self._clock.now()
                after = change(before, await self.facts(), now)
                said = None if answer is None else answer(after)
                if after == before or await self._save(before, after, generation, now, who, said):
                    break
        else:
            raise ConflictError(f"rollout {id_} is being changed by others", remedy="try again")
        log.info("rollout changed", id=id_, state=after.state, who=who)
        self._notifier.notify(_who_is_told(before, after))
        return after

    async def unblock(self, release: str) -> int:
        """Let a release be rolled out again. Returns how many rollbacks are forgotten."""
        return await self._store.unblock(release)

    async def target_of(self, node: str) -> Target | None:
        """The pending upgrade of a node: while its rollout runs and it is its turn. What it has claimed it may go on
        with while the rollout is paused."""
        found = await self._mine(node)
        if found is None:
            return None
        rollout, mine = found
        if mine.withdrawn or not _has_order(rollout, mine.state):
            return None
        return Target(
            order=mine.order,
            rollout=rollout.id,
            release=mine.release or rollout.release,
            set_by=rollout.set_by,
            set_at=mine.flagged or mine.since,
            soak_s=rollout.wave_soak(mine.wave),
            share=rollout.options.steps[0],
            undoes=mine.undoes,
            epoch=rollout.epoch,
        )

    async def withdrawn_of(self, node: str) -> list[str]:
        """Orders of this node that were taken back, and of which it has not said yet what became of them."""
        found = await self._mine(node)
        mine = None if found is None else found[1]
        if mine is None or not mine.withdrawn:
            return []
        return [mine.order] if mine.state in (NodeState.PENDING, NodeState.MOVING) else []


def _has_order(rollout: Rollout, state: NodeState) -> bool:
    if rollout.state is RolloutState.RUNNING:
        return state in (NodeState.PENDING, NodeState.MOVING)
    return rollout.state is RolloutState.PAUSED and state is NodeState.MOVING


def _asked_again(plan: Plan) -> RolloutRequest:
    """The request whose defaults are all filled in: what was shown does not change with the settings."""
    undo = plan.kind is RolloutKind.UNDO
    return RolloutRequest(
        release=None if undo else plan.release,
        undo=plan.undoes if undo else None,
        **plan.options.model_dump(),
    )


def refusal_error(refusals: list[Refusal]) -> RollcallError:
    """The first refusal as the error that the API answers with; the others are counted."""
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    kinds: dict[str, type[RollcallError]] = {"protocol": ProtocolError, "expired": UntrustedError}
    kind = kinds.get(first.gate, ConflictError)
    return kind(short(first.words, 1800) + more, remedy=first.remedy or None)


def _only_leased(before: Rollout, after: Rollout) -> bool:
    """Nothing that anybody waits for has changed."""
    return before.model_copy(update={"leased_until": after.leased_until}) == after


def _who_is_told(before: Rollout, after: Rollout) -> list[str] | None:
    """Nodes whose part has changed; None where it may be every node's."""
    terms = ("state", "release", "waves", "options", "soak_s")
    if any(getattr(before, each) != getattr(after, each) for each in terms):
        return None
    known = {node.name: node for node in before.nodes}
    return [node.name for node in after.nodes if known.get(node.name) != node]


def _settled(rollout: Rollout) -> bool:
    """No node of an ended rollout is still on its way."""
    busy = (NodeState.MOVING, NodeState.PENDING)
    return not any(node.state in busy for node in rollout.nodes)
