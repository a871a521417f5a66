"""Connects what is wanted with what may begin: the pending upgrade, the freeze, the runner, the reds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from agent.alarm import Alarms
from agent.changes import Changes
from agent.freezes import Freezes
from agent.layout import Layout
from agent.peers.mesh import Mesh
from agent.readiness.monitor import Monitor
from agent.self_upgrade import SelfUpgrade
from agent.upgrade.context import Deps
from agent.upgrade.decide import GoBack, Start, Wait, admit
from agent.upgrade.journal import Journal
from agent.upgrade.lastgood import read_last_good
from agent.upgrade.record import JournalError, Record
from agent.upgrade.runner import Runner
from shared.clock import Clock, wait_at_most
from shared.durable import switch_link
from shared.errors import ConflictError, RollcallError
from shared.freezing import By
from shared.messages import Message, RedKind, Verdict
from shared.report import Target
from shared.wire import short

log = structlog.get_logger()

TICK_S = 0.25
"""While readiness is bad: how exactly the patience with it is measured."""
IDLE_S = 5.0
"""What changes is told; this is for what would not be."""
ASK_AGAIN_S = 5.0


class Conductor:
    """Holds no phase: that is the journal's. `waiting` says why a set flag does not move the node."""

    def __init__(
        self,
        deps: Deps,
        journal: Journal,
        mesh: Mesh,
        alarms: Alarms,
        freezes: Freezes,
        monitor: Monitor,
        changes: Changes,
        self_upgrade: SelfUpgrade,
    ) -> None:
        self._deps, self._journal = deps, journal
        self._self_upgrade, self._freezes = self_upgrade, freezes
        self._mesh, self._alarms, self._monitor, self._changes = mesh, alarms, monitor, changes
        self.runner = Runner(deps, journal, changes.notify)
        self.waiting = ""
        self._withdrawn: list[str] = []
        """Orders that were taken back, as this agent has heard."""
        self._doing: str | None = None
        self._turn, self._held = asyncio.Lock(), False
        self._target: Target | None = None
        self._to_withdraw = asyncio.Event()
        self._to_look, self._to_judge = asyncio.Event(), asyncio.Event()
        changes.listen(self._stir)

    @property
    def record(self) -> Record | None:
        return self.runner.record

    @property
    def settled(self) -> bool:
        """Whether there is a release to keep up, and no upgrade moves this node."""
        moving = self.record is not None and not self.record.over
        return self._layout.current.exists() and not moving and not self._held

    @property
    def in_hand(self) -> bool:
        """Whether an order has the gateway."""
        return self._held

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """The gateway is in the hands of an order: no upgrade begins or goes on meanwhile, and readiness is not
        judged. Waits for an upgrade that moves."""
        async with self._turn:
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @property
    def _layout(self) -> Layout:
        return self._deps.layout

    @property
    def _clock(self) -> Clock:
        return self._deps.clock

    def told(self, target: Target | None) -> None:
        """The coordinator's word: this node's target, or that there is none."""
        if target is None:
            self._deps.claims.lost()
        if target != self._target:
            self._target = target
            self._stir()

    def take_back(self, orders: list[str]) -> None:
        """The coordinator's word: these orders are not to be begun, and to be undone where they have begun."""
        if orders != self._withdrawn:
            self._withdrawn = orders
            self._to_withdraw.set()
            self._stir()
            self._changes.notify()

    @property
    def withdrawn(self) -> list[str]:
        """For the report: it says of an order that was taken back that it is not begun any more. Of one that is being
        begun the journal will say what comes of it."""
        return [order for order in self._withdrawn if order != self._doing]

    def _stir(self) -> None:
        self._to_look.set()
        self._to_judge.set()

    async def load(self) -> None:
        """Only look: what cannot be read is left for `recover`."""
        with contextlib.suppress(JournalError):
            await asyncio.to_thread(self._journal.load)

    async def recover(self) -> None:
        """An unreadable journal means the last known good release and one red (fault 9). Then the
        gateway is made to serve, unless an upgrade was cut short: that goes on by itself."""
        try:
            await asyncio.to_thread(self._journal.load)
        except JournalError as error:
            kept = await asyncio.to_thread(self._journal.set_aside, f"{self._clock.now():.0f}")
            try:
                await self._fall_back()
            except (RollcallError, OSError) as failure:
                log.error("could not fall back", reason=str(failure))
            try:
                reason = f"{error}; kept as {kept.name}"
                await self._alarms.raise_red(RedKind.JOURNAL, reason, None)
            except RollcallError as failure:
                log.error("red not raised", reason=str(failure))
        try:
            await self._self_upgrade.recover(self.runner.drop)
        except (RollcallError, OSError) as failure:
            log.error("the end of the agent's upgrade is not told yet", reason=str(failure))
        if (self.record is None or self.record.over) and self._layout.current.exists():
            try:
                await self._deps.service.start(self._deps.service_spec())
            except (RollcallError, OSError) as error:
                log.error("gateway did not start", reason=str(error))

    async def _fall_back(self) -> None:
        """Without a journal: a bookmark that is younger than the last known good release belongs to an
        upgrade that did not end. What it saved is put back; otherwise only the link is set right."""
        good = await asyncio.to_thread(read_last_good, self._layout.home)
        bookmark = await asyncio.to_thread(self._deps.bookmarks.newest)
        release = good.release if good is not None else None
        if bookmark is not None and (good is None or bookmark.created > good.at):
            await self._deps.service.stop(self._deps.config.gateway.stop_timeout)
            if bookmark.folders:
                await asyncio.to_thread(self._deps.snapshots.restore, bookmark)
                await self._deps.installer.put_back(self._deps, bookmark)
            await self._deps.weight.set(bookmark.weight)
            release = bookmark.previous
        if release is not None and (self._layout.releases / release).is_dir():
            tree = self._layout.releases / release
            await asyncio.to_thread(switch_link, self._layout.current, tree)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move(), name="conduct")
            group.create_task(self._judge(), name="judge")
            group.create_task(self._withdraw(), name="withdraw")

    async def _withdraw(self) -> None:
        """Beside `_move`, which is busy with the very upgrade that is to end."""
        while True:
            await self._to_withdraw.wait()
            self._to_withdraw.clear()
            for order in self._withdrawn:
                try:
                    await self.runner.withdraw(order, f"order {order} was taken back")
                except (RollcallError, OSError) as error:
                    log.error("an order could not be taken back", order=order, reason=str(error))

    async def _move(self) -> None:
        """Whatever a disk does, the agent goes on: its gateway serves, and reds must still go out."""
        while True:
            try:
                await self._look()
            except (RollcallError, OSError) as error:
                log.error("cannot go on with the upgrade", reason=str(error))
                self._wait_for(f"cannot go on: {error}")
                await self._clock.sleep(ASK_AGAIN_S)

    async def _look(self) -> None:
        while True:
            self._to_look.clear()
            async with self._turn:
                await self.runner.resume()
            current = self._layout.current
            step = admit(
                self._target,
                current.resolve().name if current.exists() else None,
                self.record,
                self._kept_by(),
                [_say(red) for red in self._mesh.own_reds()],
                self._withdrawn,
            )
            if isinstance(step, Start):
                await self._begin(step.target)
            elif isinstance(step, GoBack):
                await self._go_back(step.target)
            else:
                self._wait_for(step.reason if isinstance(step, Wait) else "")
                await wait_at_most(self._to_look, IDLE_S)

    def _kept_by(self) -> list[str]:
        """What keeps this node as it is. A peer's red may be why an order is undone: it does not stand in the way."""
        undo = self._target is not None and self._target.undoes is not None
        return [freeze.words for freeze in self._freezes.now() if not undo or freeze.by is By.HAND]

    async def _go_back(self, target: Target) -> None:
        try:
            if refused := await self._deps.claims.claim(target):
                self._wait_for(refused)
                await self._clock.sleep(ASK_AGAIN_S)
                return
            await self._do(target, self._undo)
        except ConflictError as error:
            self._wait_for(str(error))
            await self._clock.sleep(ASK_AGAIN_S)

    async def _undo(self, target: Target) -> None:
        await self.runner.roll_back(f"undone by order {target.order}", ordered=True)

    async def _do(self, target: Target, act: Callable[[Target], Awaitable[None]]) -> None:
        """What an order asks for, unless the coordinator's word is another one by then."""
        async with self._turn:
            if target != self._target or target.order in self._withdrawn:
                return
            self._wait_for("")
            self._doing = target.order
            try:
                await act(target)
            finally:
                self._doing = None

    async def _begin(self, target: Target) -> None:
        try:
            release = await self._deps.releases.authorise(target.release)
            if refused := await self._deps.claims.claim(target):
                self._wait_for(refused)
                await self._clock.sleep(ASK_AGAIN_S)
                return
            if not await self._self_upgrade.step(target, release, self.runner.drop):
                return
        except ConflictError as error:
            self._wait_for(str(error))
            await self._clock.sleep(ASK_AGAIN_S)
            return
        except (RollcallError, OSError) as error:
            self._wait_for(f"refused: {error}")
            await self._clock.sleep(ASK_AGAIN_S)
            return
        await self._do(target, lambda order: self.runner.begin(order, release.label))

    def _wait_for(self, reason: str) -> None:
        reason = short(reason)
        if reason != self.waiting:
            self.waiting = reason
            self._changes.notify()

    async def _judge(self) -> None:
        while True:
            self._to_judge.clear()
            kept, document = self.settled, self._monitor.document()
            try:
                await self._alarms.judge(document, kept=kept)
            except (RollcallError, OSError) as error:
                log.error("cannot judge readiness", reason=str(error))
            well = not kept or document.status is Verdict.GREEN
            await wait_at_most(self._to_judge, IDLE_S if well else TICK_S)


def _say(red: Message) -> str:
    return f"a red of {red.payload.origin} [{red.key}]"
