"""Wakes whoever waits for news. The generation never goes back, also not over a restart.

Two kinds wait: those who watch the whole fleet, for whom everything is news, and the nodes' polls, which are woken
for what concerns their node. Thousands of these wait, and a heartbeat of one is nothing to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shared.clock import wait_at_most

RESTART_STEP = 1000
"""A boot is numbered by its time in ms; no coordinator has more news than this in one."""


class Notifier:
    def __init__(self, boot: int) -> None:
        self._generation = boot * RESTART_STEP
        self.news = 0
        """Goes up with everything but heartbeats that say nothing new."""
        self._news = asyncio.Event()
        self.pressing = asyncio.Event()
        """Set by `press`; whoever leads rollouts clears it before looking."""
        self._to_all = 0
        self._to_one: dict[str, int] = {}
        self._polls: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def generation(self) -> int:
        return self._generation

    def notify(self, nodes: Iterable[str] | None = None) -> None:
        """News for who watches the fleet, and for these nodes; for all of them where none are named."""
        self.seen()
        if nodes is None:
            self._to_all += 1
            nodes = list(self._polls)
        else:
            nodes = set(nodes)
            for node in nodes:
                self._to_one[node] = self._to_one.get(node, 0) + 1
        for node in nodes:
            for poll in self._polls.pop(node, ()):
                _wake(poll)

    def seen(self) -> None:
        """News for who watches the fleet alone."""
        self.news += 1
        self.beaten()

    def beaten(self) -> None:
        """Nodes live, and say what they have said before."""
        self._generation += 1
        self._news.set()
        self._news = asyncio.Event()

    def press(self) -> None:
        """The same, of what a rollout is likely to wait for."""
        self.pressing.set()
        self.seen()

    async def wait_beyond(self, generation: int, timeout_s: float) -> int:
        """Returns the generation at once when it is newer, else at the next change or the timeout."""
        if self._generation <= generation and timeout_s > 0:
            await wait_at_most(self._news, timeout_s)
        return self._generation

    def number(self, node: str) -> int:
        """Goes up with every piece of news for this node."""
        return self._to_all + self._to_one.get(node, 0)

    async def wait_for(self, node: str, number: int, timeout_s: float) -> int:
        """As `wait_beyond`, for a node's own number."""
        if self.number(node) > number or timeout_s <= 0:
            return self.number(node)
        loop = asyncio.get_running_loop()
        poll: asyncio.Future[None] = loop.create_future()
        self._polls.setdefault(node, []).append(poll)
        timer = loop.call_later(timeout_s, _wake, poll)
        try:
            await poll
        finally:
            timer.cancel()
            self._forget(node, poll)
        return self.number(node)

    def _forget(self, node: str, poll: asyncio.Future[None]) -> None:
        polls = self._polls.get(node, [])
        if poll in polls:
            polls.remove(poll)
            if not polls:
                del self._polls[node]


def _wake(poll: asyncio.Future[None]) -> None:
    if not poll.done():
        poll.set_result(None)
