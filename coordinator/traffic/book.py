"""What is wanted of every node, in memory as in the tables; its changes are news for whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from coordinator.notifier import Notifier
from coordinator.store.settling import answered_by
from coordinator.store.traffic import TrafficQueries
from coordinator.traffic.decide import FreshId, Wanted, frozen_words
from shared.clock import Clock
from shared.errors import ConflictError
from shared.traffic import FleetFreeze, TrafficEntry, TrafficWord
from shared.wire import Wire

Answer = Callable[[Sequence[Wanted]], Wire]


@dataclass(frozen=True)
class Said:
    """What an operator says of one node. `release` is what it runs now."""

    percent: int
    pinned: bool
    release: str | None


class TrafficBook:
    """The only writer of shares. Every change names what it changes, and counts only if that still stands."""

    def __init__(
        self, queries: TrafficQueries, notifier: Notifier, clock: Clock, fresh: FreshId
    ) -> None:
        self._queries, self._notifier, self._clock, self._fresh = queries, notifier, clock, fresh
        self._wanted: dict[str, Wanted] = {}
        self._frozen: FleetFreeze | None = None
        self._changing = asyncio.Lock()
        self._words: dict[str, tuple[Wanted | None, FleetFreeze | None, TrafficWord]] = {}
        """By node, with what it was made of; one under "" for all of which nothing is wanted."""

    async def load(self) -> None:
        self._wanted = {each.node: each for each in await self._queries.wanted()}
        self._frozen = await self._queries.freeze()

    @property
    def wanted(self) -> Mapping[str, Wanted]:
        return self._wanted

    @property
    def frozen(self) -> FleetFreeze | None:
        return self._frozen

    @property
    def unsettled(self) -> bool:
        """Some share is to change by itself."""
        return any(each.widens for each in self._wanted.values())

    def word(self, node: str) -> TrafficWord:
        """What this node is told. The same until something is changed: every heartbeat asks."""
        wanted, frozen = self._wanted.get(node), self._frozen
        known = self._words.get(node if wanted is not None else "")
        if known is not None and known[0] is wanted and known[1] is frozen:
            return known[2]
        word = TrafficWord(
            step=None if wanted is None else wanted.step(),
            frozen="" if frozen is None else frozen_words(frozen),
        )
        self._words[node if wanted is not None else ""] = (wanted, frozen, word)
        return word

    async def change(
        self, pairs: Iterable[tuple[Wanted | None, Wanted]], answer: Answer | None = None
    ) -> bool:
        """From what was looked at to what it shall be. Whatever somebody else has changed meanwhile stays as it is.
        Returns whether a node is to be told something else. `answer` makes of the changed what is said of it."""
        async with self._changing:
            fits = [
                (before, after)
                for before, after in pairs
                if after != before and self._wanted.get(after.node) == before
            ]
            if not fits:
                return False
            changed = [after for _, after in fits]
            told = [
                _entry(after) for before, after in fits if before is None or before.id != after.id
            ]
            if answer is not None:
                answered_by(answer(changed))
            await self._queries.keep(changed, told)
            self._wanted |= {each.node: each for each in changed}
        if told:
            self._notifier.notify(entry.node for entry in told)
        return bool(told)

    async def say(
        self, words: Mapping[str, Said], by: str, reason: str, answer: Answer | None = None
    ) -> None:
        """An operator's words, by node. `answer` as in `change`. Raises ConflictError while all ratios are frozen."""
        self.check_thawed()
        now = self._clock.now()
        pairs = []
        for node, said in words.items():
            before = self._wanted.get(node)
            known = before or Wanted(
                node=node, id="", percent=said.percent, since=now, by=by, reason=""
            )
            after = replace(
                known,
                id=self._fresh(node),
                percent=said.percent,
                since=now,
                by=by,
                reason=reason,
                pinned=said.pinned,
                release=said.release,
                steady=None,
            )
            pairs.append((before, after))
        await self.change(pairs, answer)

    def check_thawed(self) -> None:
        if self._frozen is not None:
            raise ConflictError(
                f"{self._frozen.by} froze all ratios: {self._frozen.reason}",
                remedy="lift that first: rollcall traffic unfreeze --reason ...",
            )

    async def freeze(self, by: str, reason: str) -> FleetFreeze:
        """Raises ConflictError while one holds: whoever set that one has a reason as well."""
        async with self._changing:
            self.check_thawed()
            now = self._clock.now()
            made = FleetFreeze(since=now, by=by, reason=reason)
            entry = TrafficEntry(at=now, node="", by=by, reason=f"all ratios frozen: {reason}")
            answered_by(made)
            await self._queries.set_freeze(made, entry)
            self._frozen = made
        self._notifier.notify()
        return made

    async def unfreeze(self, by: str, reason: str) -> FleetFreeze:
        """Returns the freeze that is over. Raises ConflictError when there is none."""
        async with self._changing:
            over = self._frozen
            if over is None:
                raise ConflictError(
                    "the ratios are not frozen", remedy="see: rollcall traffic show"
                )
            entry = TrafficEntry(
                at=self._clock.now(), node="", by=by, reason=f"freeze lifted: {reason}"
            )
            answered_by(over)
            await self._queries.set_freeze(None, entry)
            self._frozen = None
        self._notifier.notify()
        return over

    async def forget(self, live: Iterable[str]) -> None:
        """Nodes that were revoked want nothing."""
        async with self._changing:
            gone = sorted(self._wanted.keys() - set(live))
            if gone:
                await self._queries.forget(gone)
                for node in gone:
                    del self._wanted[node]


def _entry(wanted: Wanted) -> TrafficEntry:
    return TrafficEntry(
        at=wanted.since,
        node=wanted.node,
        percent=wanted.percent,
        by=wanted.by,
        reason=wanted.reason,
        rollout=wanted.rollout,
        id=wanted.id,
    )
