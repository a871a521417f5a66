"""Sync with the coordinator: one waiting request for news, and one at once for each change here."""

from __future__ import annotations

import asyncio
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
from shared.report import NodeAddresses, NodeReport, SyncAnswer, SyncRequest, Target
from shared.wire import short

log = structlog.get_logger()

WAIT_S = 12.0
"""How long an exchange waits for news of the coordinator: each is a heartbeat too, and a node counts as silent after
30 s. What changes here is told at once."""
BATCH_S = 0.1
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


class Clears(Protocol):
    """Who believes operators' clears, and has some to hand on."""

    async def offer(self) -> Offered: ...
    async def answered(self, offered: Offered, stored: list[str], clears: list[str]) -> None: ...


class Sync:
    """`report` builds what to say; `on_target` is told the pending upgrade after every answer, and
    `repository` how much operators have published.

    Without the coordinator nothing new starts: when it is lost its last target is forgotten, and heard
    again from the next answer.
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
    ) -> None:
        self._coordinator, self._trust, self._store = coordinator, trust, store
        self._clock, self._report, self._on_target = clock, report, on_target
        self._generation = 0
        self._repository, self._number = repository, 0
        self._addresses = addresses
        self._clears = clears
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
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._exchange(0)
            except (RollcallError, OSError) as error:
                self._lost(error)
                await self._clock.sleep(1.0)
            await self._clock.sleep(BATCH_S)

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
        if answer.roster is not None:
            await self._take_roster(answer.roster.encode())
        if answer.generation >= self._generation:
            self._generation = answer.generation
            self._take(answer.target)

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
        if not isinstance(error, UnavailableError | OSError):
            self.refused = short(str(error)) if is_about_protocol(error) else ""
        self.connected = False
        self._generation = 0
        self._take(None)

    def _take(self, target: Target | None) -> None:
        self._holds = None if target is None else target.order
        self._on_target(target)
