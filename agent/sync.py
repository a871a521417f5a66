"""Sync with the coordinator: one waiting request for news, and one at once for each change here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from agent.clearing import Offered
from agent.coordinator import Coordinator
from agent.store import Store
from agent.trust import Trust
from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import RollcallError, UnavailableError, UntrustedError
from shared.http import is_about_protocol
from shared.nodes import CohortIntent
from shared.orders import NodeOrders
from shared.report import NodeAddresses, NodeReport, SyncAnswer, SyncRequest, Target
from shared.traffic import TrafficWord
from shared.wire import short

log = structlog.get_logger()

WAIT_S = 12.0
"""How long an exchange waits for news of the coordinator: each is a heartbeat too, and a node counts as silent after
30 s. What changes here is told at once."""
BURST, BATCH_S, LEAST_S = 3, 0.1, 0.01
"""So many exchanges that tell what is new here begin within BURST * BATCH_S, and none within LEAST_S of the last one's
end. After a quiet moment news goes out at once: the next node may wait for the end of this one's upgrade."""
AT_LEAST_S, REFUSED_S = 0.05, 1.0
"""Between two exchanges: a coordinator that always has news at once must not keep this host busy."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 10.0


class Repository(Protocol):
    """Who fetches what operators publish."""

    def heard(self, number: int) -> None: ...
    def lost(self) -> None: ...


class AddressBook(Protocol):
    """Who takes hints of where peers are. `heard_list` is the tag of the list that it has."""

    @property
    def heard_list(self) -> str: ...
    def take_list(self, heard: NodeAddresses) -> None: ...


class OrderList(Protocol):
    """Who does orders. `heard_orders` is the tag of the list that it has."""

    @property
    def heard_orders(self) -> str: ...
    def told(self, heard: NodeOrders | None) -> None:
        """A newer list; None when what it has still holds."""
        ...

    def lost(self) -> None: ...


class Drains(Protocol):
    """Who knows whether this worker takes new work. `heard` is the coordinator's last word on it."""

    @property
    def heard(self) -> CohortIntent | None: ...
    async def told(self, intent: CohortIntent | None) -> None: ...


class Clears(Protocol):
    """Who believes operators' clears, and has some to hand on."""

    async def offer(self) -> Offered: ...
    async def answered(self, offered: Offered, stored: list[str], clears: list[str]) -> None: ...


class Shares(Protocol):
    """Who moves the share of traffic. `tag` is of the word that it has; None says that the coordinator was lost."""

    @property
    def tag(self) -> str: ...
    def heard(self, word: TrafficWord | None) -> None: ...


class Sync:
    """`report` builds what to say; `on_target` is told the pending upgrade after every answer, `on_withdrawn` before
    it the orders that were taken back, and `repository` how much operators have published.

    Without the coordinator nothing new starts: when it is lost its last target is forgotten, and heard
    again from the next answer. What was taken back stays taken back: silence means nothing.
    """

    def __init__(  # noqa: PLR0913 - everything that is told or heard in one exchange
        self,
        coordinator: Coordinator,
        trust: Trust,
        store: Store,
        clock: Clock,
        report: Callable[[], Awaitable[NodeReport]],
        on_target: Callable[[Target | None], None],
        repository: Repository,
        *,
        clears: Clears,
        addresses: AddressBook | None = None,
        shares: Shares | None = None,
        orders: OrderList | None = None,
        drains: Drains | None = None,
        on_withdrawn: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._coordinator, self._trust, self._store = coordinator, trust, store
        self._clock, self._report, self._on_target = clock, report, on_target
        self._generation = 0
        self._repository, self._number = repository, 0
        self._addresses, self._shares, self._orders = addresses, shares, orders
        self._clears, self._drains = clears, drains
        self._on_withdrawn = on_withdrawn
        self._holds: str | None = None
        self._news = asyncio.Event()
        self.connected = False
        self.refused = ""
        """Why this agent and the coordinator cannot speak with each other, by the last answer there was."""

    @property
    def alerts(self) -> list[str]:
        return [f"sync: {self.refused}"] if self.refused else []

    def changed(self) -> None:
        """Something here is worth telling now."""
        self._news.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="sync-listen")
            group.create_task(self._tell(), name="sync-tell")

    async def _listen(self) -> None:
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        while True:
            try:
                await self._exchange(WAIT_S)
                backoff.succeeded()
                await self._clock.sleep(AT_LEAST_S)
            except (RollcallError, OSError) as error:
                self._lost(error)
                await self._clock.sleep(backoff.failed())

    async def _tell(self) -> None:
        begun: deque[float] = deque([float("-inf")] * BURST, maxlen=BURST)
        while True:
            await self._news.wait()
            self._news.clear()
            begun.append(self._clock.monotonic())
            try:
                await self._exchange(0)
            except (RollcallError, OSError) as error:
                self._lost(error)
                await self._clock.sleep(1.0)
            due = begun[0] + BURST * BATCH_S
            await self._clock.sleep(max(LEAST_S, due - self._clock.monotonic()))

    async def _exchange(self, wait_s: float) -> None:
        offered = await self._clears.offer()
        request = SyncRequest(
            report=await self._report(),
            holds=self._holds,
            wait_s=wait_s,
            roster=self._trust.roster.number,
            repository=self._number,
            messages=await self._store.to_upload(),
            addresses=None if self._addresses is None else self._addresses.heard_list,
            open_reds=offered.open_reds,
            clears=offered.clears,
            traffic=None if self._shares is None else self._shares.tag,
            orders=None if self._orders is None else self._orders.heard_orders,
            cohort=None if self._drains is None else self._drains.heard,
        )
        answer = await self._coordinator.sync(request)
        await self._clears.answered(offered, answer.stored, answer.clears)
        await self._apply(answer)

    async def _apply(self, answer: SyncAnswer) -> None:
        if not self.connected:
            log.info("coordinator reached")
        self.connected, self.refused = True, ""
        await self._store.uploaded(answer.stored)
        self._number = answer.repository
        self._repository.heard(answer.repository)
        if self._addresses is not None and answer.addresses is not None:
            self._addresses.take_list(answer.addresses)
        if self._drains is not None:
            await self._drains.told(answer.cohort)
        if answer.roster is not None:
            await self._take_roster(answer.roster.encode())
        if answer.generation >= self._generation:
            self._generation = answer.generation
            if self._on_withdrawn is not None:
                self._on_withdrawn(answer.withdrawn)
            self._take(answer.target)
            if self._shares is not None and answer.traffic is not None:
                self._shares.heard(answer.traffic)
            if self._orders is not None:
                self._orders.told(answer.orders)

    async def _take_roster(self, raw: bytes) -> None:
        """One that goes with a fleet document which this node has not fetched yet comes again."""
        try:
            await self._trust.accept_roster(raw)
        except UntrustedError as error:
            log.warning("roster refused", reason=str(error))
            await self._clock.sleep(REFUSED_S)

    def _lost(self, error: Exception) -> None:
        """What comes back may be another coordinator, or one put back from a backup: its generation
        and its count of publications begin anew."""
        if self.connected:
            log.warning("coordinator lost", reason=str(error))
            self._repository.lost()
            if self._orders is not None:
                self._orders.lost()
        if not isinstance(error, UnavailableError | OSError):
            self.refused = short(str(error)) if is_about_protocol(error) else ""
        self.connected = False
        self._generation = 0
        self._take(None)
        if self._shares is not None:
            self._shares.heard(None)

    def _take(self, target: Target | None) -> None:
        self._holds = None if target is None else target.order
        self._on_target(target)
