"""Does this node's orders, one at a time: claims with an ETA, performs, says how far it is, tells the end.

Nothing is claimed without the coordinator; what is claimed is finished without it, and its end told later. What
was in hand when the agent was killed is taken up again where its notes say that it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from agent.orders.kept import Doing, KeptOrders, Outcome
from agent.orders.performer import Performer, Work
from shared.backoff import Backoff
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError, UnavailableError
from shared.failpoint import fail_point
from shared.http import RefusedError
from shared.orders import (
    ClaimRequest,
    CompleteRequest,
    NodeOrders,
    Notice,
    OpenOrder,
    UpdateRequest,
)
from shared.wire import Wire, short

log = structlog.get_logger()

IDLE_S = 2.0
"""What keeps an order back may end without anybody saying so."""
UPDATE_EVERY_S = 60.0
SOONEST_UPDATE_S = 1.0
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
_OVER = frozenset({403, 404, 409})
"""Refusals that no repetition changes: it is another's, it is gone, or it has ended."""


class Door(Protocol):
    """The way to the coordinator. Raises UnavailableError, and RefusedError."""

    async def order(self, order: str, verb: str, asked: Wire, key: str) -> None: ...


@dataclass(frozen=True)
class _Refused:
    """A claim that was refused, and when it is made again."""

    why: str
    pause: float
    until: float


class Ordering:
    """`waits` says why an order of a kind cannot be taken up now; `on_change` is told when `waiting` or the
    notices are others."""

    def __init__(
        self,
        kept: KeptOrders,
        door: Door,
        performers: Sequence[Performer],
        waits: Callable[[str], str],
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._kept, self._door, self._clock = kept, door, clock
        self._performers = {each.kind: each for each in performers}
        self._waits, self._on_change = waits, on_change
        self._wake = asyncio.Event()
        self._list = NodeOrders(tag="")
        self._connected = False
        self._refused: dict[str, _Refused] = {}
        self._claim_keys: dict[str, str] = {}
        self._progress = ""
        self.waiting = ""

    @property
    def heard_orders(self) -> str:
        return self._list.tag if self._connected else ""

    @property
    def notices(self) -> list[Notice]:
        return self._list.notices

    @property
    def alerts(self) -> list[str]:
        return [short(notice.text, 500) for notice in self._list.notices]

    def told(self, heard: NodeOrders | None) -> None:
        if heard is None and self._connected:
            return
        self._list, self._connected = heard or NodeOrders(tag=""), True
        names = {order.id for order in self._list.orders}
        self._refused = {name: each for name, each in self._refused.items() if name in names}
        self._wake.set()
        self._on_change()

    def lost(self) -> None:
        """What it listed stays known; nothing of it is taken up until it is heard again."""
        self._connected = False

    async def run(self) -> None:
        """Whatever a disk does, the agent goes on."""
        await asyncio.to_thread(self._kept.load)
        while True:
            try:
                await self._next()
            except (RollcallError, OSError) as error:
                log.error("cannot go on with the orders", reason=str(error))
                await self._clock.sleep(IDLE_S)

    async def _next(self) -> None:
        self._wake.clear()
        doing = self._kept.doing or await self._take_up()
        if doing is None:
            await wait_at_most(self._wake, IDLE_S)
        elif doing.outcome is None:
            await self._do(doing)
        else:
            await self._tell(doing, doing.outcome)

    async def _take_up(self) -> Doing | None:
        """Claim the oldest order that may be done now. The rest waits, the first of it with a reason."""
        waiting = ""
        for order in self._list.orders if self._connected else []:
            if self._kept.has_ended(order.id):
                continue
            known = order.kind in self._performers
            why = self._waits(order.kind) if known else ""
            refused = self._refused.get(order.id)
            if refused is not None and self._clock.monotonic() < refused.until:
                why = refused.why
            if not why:
                why = await self._claim(order)
            if not why:
                self._wait_for("")
                return self._kept.doing
            waiting = waiting or f"order {order.id} ({order.kind}) waits: {why}"
        self._wait_for(waiting)
        return None

    async def _claim(self, order: OpenOrder) -> str:
        """Why this node does not have it; empty once it has. The same claim is said again until it is answered."""
        performer = self._performers.get(order.kind)
        eta_s = 60.0 if performer is None else performer.eta_s
        key = self._claim_keys.setdefault(order.id, str(uuid.uuid4()))
        try:
            await self._door.order(order.id, "claim", ClaimRequest(eta_s=eta_s), key)
        except UnavailableError as error:
            return f"it cannot be claimed: {error.message}"
        except RefusedError as error:
            self._claim_keys.pop(order.id, None)
            return self._note_refusal(order.id, f"the claim was refused: {error.message}")
        fail_point("order.claimed")
        self._claim_keys.pop(order.id, None)
        await self._kept.keep(Doing(order=order))
        log.info("order claimed", id=order.id, kind=order.kind, by=order.created_by)
        return ""

    def _note_refusal(self, order: str, why: str) -> str:
        """What was in the way may end: asked again, less and less often."""
        before = self._refused.get(order)
        pause = FIRST_RETRY_S if before is None else min(2 * before.pause, LONGEST_RETRY_S)
        self._refused[order] = _Refused(why, pause, self._clock.monotonic() + pause)
        return why

    def _wait_for(self, reason: str) -> None:
        reason = short(reason)
        if reason != self.waiting:
            self.waiting = reason
            self._on_change()

    async def _do(self, doing: Doing) -> None:
        performer = self._performers.get(doing.order.kind)
        if performer is None:
            unknown = Outcome(failed=True, reason=f"this agent cannot {doing.order.kind}")
            await self._kept.keep(doing.model_copy(update={"outcome": unknown}))
            return
        work = Work(doing, self._kept, self._say)
        self._progress = "taken up again" if doing.facts else "taken up"
        performing = asyncio.create_task(_perform(performer, work), name=f"order-{work.name}")
        telling = asyncio.create_task(self._report(work), name="order-updates")
        try:
            outcome = await self._until_done(performing, work)
        finally:
            for task in (telling, performing):
                task.cancel()
            await asyncio.gather(telling, performing, return_exceptions=True)
        if outcome is None:
            log.info("order dropped", id=work.order.id, reason="it was taken back")
            await self._kept.end(work.order.id)
            return
        fail_point("order.done")
        now = self._kept.doing or doing
        await self._kept.keep(now.model_copy(update={"outcome": outcome}))

    async def _until_done(self, performing: asyncio.Task[Outcome], work: Work) -> Outcome | None:
        """None when it was taken back while it could still be left."""
        while not performing.done():
            self._wake.clear()
            waking = asyncio.create_task(self._wake.wait())
            try:
                await asyncio.wait({performing, waking}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
            if not performing.done() and self._is_gone(work.order.id) and not work.begun:
                return None
        return performing.result()

    def _is_gone(self, order: str) -> bool:
        return self._connected and order not in {each.id for each in self._list.orders}

    def _say(self, text: str) -> None:
        self._progress = short(text)

    async def _report(self, work: Work) -> None:
        """Each change of what is said, and now and then that it goes on."""
        said, at = None, self._clock.monotonic()
        while True:
            late = self._clock.monotonic() - at >= UPDATE_EVERY_S
            if said != self._progress or late:
                said, at = self._progress, self._clock.monotonic()
                with contextlib.suppress(RollcallError, OSError):
                    asked = UpdateRequest(reason=said)
                    await self._door.order(work.order.id, "update", asked, str(uuid.uuid4()))
            await self._clock.sleep(SOONEST_UPDATE_S)

    async def _tell(self, doing: Doing, outcome: Outcome) -> None:
        """Until it is heard, or nobody wants to know any more. The key is the order's own: told twice, it counts
        once."""
        order, backoff = doing.order.id, Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        asked = CompleteRequest(**outcome.model_dump())
        while True:
            try:
                await self._door.order(order, "complete", asked, f"{order}/complete")
                break
            except RefusedError as error:
                if error.status in _OVER:
                    log.warning("nobody wants the end of the order", id=order, reason=str(error))
                    break
                log.warning("the end of the order is told again", id=order, reason=str(error))
            except (UnavailableError, OSError) as error:
                log.info("the end of the order is told later", id=order, reason=str(error))
            await self._clock.sleep(backoff.failed())
        fail_point("order.told")
        await self._kept.end(order)
        word = "failed" if outcome.failed else "done"
        log.info("order ended", id=order, outcome=word, reason=outcome.reason)


async def _perform(performer: Performer, work: Work) -> Outcome:
    """Only cancellation passes through: a surprise is a failed order, not one that is met again at every start."""
    try:
        return await performer.perform(work)
    except RollcallError as error:
        return Outcome(failed=True, reason=short(str(error)))
    except OSError as error:
        return Outcome(failed=True, reason=short(str(error.strerror or error)))
    except Exception as error:
        log.exception("order failed", id=work.order.id)
        return Outcome(failed=True, reason=short(f"{type(error).__name__}: {error}"))
