"""Performs what was decided, and has the journal remember it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.upgrade.context import Context, Deps
from agent.upgrade.decide import Enter, Perform, Rest, decide
from agent.upgrade.journal import Journal
from agent.upgrade.lastgood import read_last_good
from agent.upgrade.loss import count_loss
from agent.upgrade.phases import AFTER_STOP, FORWARD, GOING_BACK, Phase
from agent.upgrade.record import Entry, Kind, Record, apply
from agent.upgrade.steps import STEPS
from agent.upgrade.steps.base import Step
from shared.errors import ConflictError, RollcallError
from shared.release import Release
from shared.report import RollbackPlan, Target
from shared.versions import as_word
from shared.wire import short

log = structlog.get_logger()


class Runner:
    """One upgrade at a time. `on_change` is called after every entry of the journal."""

    def __init__(
        self,
        deps: Deps,
        journal: Journal,
        on_change: Callable[[], None],
        steps: Mapping[Phase, Step] = STEPS,
    ) -> None:
        self._deps, self._journal, self._on_change = deps, journal, on_change
        self._steps = steps
        self._asked: asyncio.Event = asyncio.Event()
        self._why: dict[str, Any] = {}
        self._busy = asyncio.Lock()
        self._beginning: str | None = None
        """The order whose first entry is on its way into the journal."""

    @property
    def record(self) -> Record | None:
        return self._journal.record

    async def begin(self, target: Target, label: str) -> None:
        """Journal a new upgrade and take it to its end, or to its rollback."""
        upgrade = target.order.replace(":", "-")
        data = {"target": target.model_dump(mode="json"), "label": label}
        self._beginning = target.order
        async with self._busy:
            await self._append(upgrade, Kind.BEGIN, FORWARD[0], data)
            self._beginning = None
            await self._run()

    async def drop(self, target: Target, label: str, reason: str) -> None:
        """Journal an order that ended before this node could begin it, so that its end is told and it is
        not taken again. Nothing for an order that is in the journal, or while another one runs."""
        async with self._busy:
            record = self.record
            if record is not None and (not record.over or record.target.order == target.order):
                return
            upgrade = target.order.replace(":", "-")
            data = {"target": target.model_dump(mode="json"), "label": label}
            await self._append(upgrade, Kind.BEGIN, FORWARD[0], data)
            await self._append(upgrade, Kind.FAIL, FORWARD[0], {"reason": short(reason)})
            await self._run()

    async def resume(self) -> None:
        """After a restart of the agent: go on from where the journal stands."""
        async with self._busy:
            if self.record is not None and not self.record.over:
                log.info("upgrade resumed", upgrade=self.record.upgrade, phase=self.record.phase)
                await self._run()

    async def withdraw(self, order: str, reason: str) -> None:
        """The order was taken back: dropped before the outage, rolled back after. Nothing for one that has ended, or
        is on its way back, or never began."""
        record = self.record
        if self._beginning == order:
            self._why = {"reason": short(reason), "ordered": True}
            self._asked.set()
            return
        if record is not None and record.target.order == order and record.phase in FORWARD:
            await self.roll_back(reason, ordered=True)

    async def roll_back(self, reason: str, *, ordered: bool = False) -> Record:
        """An operator's rollback: of the upgrade that runs, of the last one that ended well, or once more where
        one got stuck. `ordered` by the fleet's operators, it is no failure: peers do not freeze for it.

        Raises ConflictError when there is nothing to go back from.
        """
        record = self.record
        running, why = self._busy.locked(), {"reason": short(reason), "ordered": ordered}
        if record is not None and record.phase in FORWARD and running:
            self._why = why
            self._asked.set()
        elif record is not None and record.phase in (*FORWARD, Phase.DONE, Phase.STUCK):
            if record.phase is Phase.DONE:
                await self._check_floor(record)
            async with self._busy:
                await self._append(record.upgrade, Kind.REQUEST, record.phase, why)
                await self._run()
        elif record is not None and record.phase in GOING_BACK and not running:
            await self.resume()
        else:
            busy = record is not None and record.phase in GOING_BACK
            raise ConflictError(
                "it is rolling back already" if busy else "there is nothing to roll back from",
                remedy="a rollback undoes the last finished upgrade, once",
            )
        async with self._busy:
            if self.record is None:
                raise ConflictError("the journal is empty")
            return self.record

    async def plan_rollback(self) -> RollbackPlan:
        """What `roll_back` would do now; touches nothing."""
        record = self.record
        if record is None or record.phase not in (*AFTER_STOP, Phase.DONE, Phase.STUCK):
            return RollbackPlan(possible=False, reason="there is nothing to roll back from")
        bookmark = await asyncio.to_thread(self._deps.bookmarks.read, record.upgrade)
        if bookmark is None:
            return RollbackPlan(possible=False, reason="the bookmark of this upgrade is gone")
        try:
            if record.phase is Phase.DONE:
                await self._check_floor(record)
        except ConflictError as error:
            return RollbackPlan(possible=False, reason=error.message, upgrade=record.upgrade)
        context = Context(self._deps, record, None)
        return RollbackPlan(
            possible=True,
            upgrade=record.upgrade,
            running=as_word(record.fact(Phase.RESTARTED, "running")),
            previous=as_word(bookmark.previous_version),
            lost=await count_loss(context, bookmark),
            outage_s=(record.fact(Phase.VERIFIED, "way_back") or {}).get("rollback_s"),
        )

    async def _check_floor(self, record: Record) -> None:
        """An upgrade that was proven and soaked is not undone below the floor of its release; one that
        fails before that goes back to what ran a moment ago, whatever the floor."""
        good = await asyncio.to_thread(read_last_good, self._deps.layout.home)
        floor = good.bound.floor if good is not None and good.bound is not None else None
        previous = await self._deps.releases.kept(record.fact(Phase.CLAIMED, "previous"))
        if floor is not None and (previous is None or previous.place < floor.place):
            raise ConflictError(
                f"{record.label} allows no way back below {floor.name}",
                remedy="freeze what is wanted as a new release, and move forward to it",
            )

    async def _run(self) -> None:
        while self.record is not None:
            match decide(self.record):
                case Rest():
                    late = self._asked.is_set() and self.record.phase is Phase.DONE
                    self._asked.clear()
                    if not late:
                        return
                    await self._append(self.record.upgrade, Kind.REQUEST, Phase.DONE, self._why)
                case Enter(phase):
                    await self._append(self.record.upgrade, Kind.ENTER, phase, {})
                case Perform(phase):
                    await self._perform(self.record, phase)

    async def _perform(self, record: Record, phase: Phase) -> None:
        self._deps.progress("")
        if phase in FORWARD and self._asked.is_set():
            self._asked.clear()
            await self._append(record.upgrade, Kind.REQUEST, phase, self._why)
            return
        step = asyncio.create_task(self._step(record, phase), name=f"step-{phase}")
        asked = asyncio.create_task(self._asked.wait())
        try:
            interruptible = {step, asked} if phase in FORWARD else {step}
            await asyncio.wait(interruptible, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                await asyncio.wait({step})
        finally:
            asked.cancel()
            step.cancel()
        if step.cancelled():
            self._asked.clear()
            await self._append(record.upgrade, Kind.REQUEST, phase, self._why)
            return
        kind, data = step.result()
        await self._append(record.upgrade, kind, phase, data, goes_on=True)

    async def _step(self, record: Record, phase: Phase) -> tuple[Kind, dict[str, Any]]:
        """The step's outcome as a journal entry. Only cancellation passes through."""
        step = self._steps[phase]
        try:
            context = Context(self._deps, record, await self._release(record, phase))
            evidence = await step.done(context)
            if evidence is None:
                evidence = await step.act(context)
        except RollcallError as error:
            log.warning("step failed", phase=phase, reason=str(error))
            return Kind.FAIL, {"reason": short(f"{phase}: {error}")}
        except OSError as error:
            log.warning("step failed", phase=phase, reason=str(error))
            return Kind.FAIL, {"reason": f"{phase}: {error.strerror or error}"}
        except Exception as error:
            # A surprise is a failed phase, not a dead agent that meets it again at every start.
            log.exception("step failed", phase=phase)
            return Kind.FAIL, {"reason": short(f"{phase}: {type(error).__name__}: {error}")}
        return Kind.PASS, evidence

    async def _release(self, record: Record, phase: Phase) -> Release | None:
        if phase not in FORWARD:
            return None
        return await self._deps.releases.release(record.target.release)

    async def _append(
        self, upgrade: str, kind: Kind, phase: Phase, data: dict[str, Any], *, goes_on: bool = False
    ) -> None:
        """With `goes_on` together with the intent that follows from it, so that the disk syncs once for both."""
        now = self._deps.clock.now()
        entry = Entry(at=now, upgrade=upgrade, kind=kind, phase=phase, data=data)
        entries = [entry]
        if goes_on:
            match decide(apply(self.record, entry)):
                case Enter(following):
                    entries.append(Entry(at=now, upgrade=upgrade, kind=Kind.ENTER, phase=following))
        await asyncio.to_thread(self._journal.append, *entries)
        for each in entries:
            log.info("journal", upgrade=upgrade, kind=each.kind, phase=each.phase)
        self._on_change()
