"""`POST /v1/sync`: a node's report in, its target and the roster out; waits for news if asked to."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Media, Resource, Route
from coordinator.drains import Drains
from coordinator.fleet import FleetState, Word
from coordinator.notifier import Notifier
from coordinator.orders.book import OrderBook
from coordinator.repository import Repository
from coordinator.rollout.engine import Engine
from coordinator.traffic.book import TrafficBook
from shared.errors import UntrustedError
from shared.nodes import Cohort, CohortIntent
from shared.report import NodeAddresses, SyncAnswer, SyncRequest, Target

LONGEST_WAIT_S = 25.0
SPREAD = 0.2
"""Of a wait, by which it may end early: nodes that began together, after a restart of the coordinator, would otherwise
come back together for ever."""
READ_AT_ONCE = 64
"""Reports that are in memory as values, each six times as large as its bytes, while what they bring is written."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What of a request counts while it waits and in its answer: everything of `SyncRequest` that is not kept."""

    wait_s: float
    holds: str | None
    roster: tuple[int, int]
    repository: int
    addresses: str | None
    orders: str | None
    traffic: str | None
    open_reds: tuple[str, ...]
    withdrawn: list[str] | None
    cohort: Cohort | None
    heard_cohort: CohortIntent | None


@dataclass(frozen=True, slots=True)
class Known:
    """A request that is durable. It counts under the roster of its time: a node that came back begins anew."""

    digest: bytes
    as_of: tuple[int, int]
    terms: Terms


class SyncApi(Resource):
    def __init__(
        self,
        fleet: FleetState,
        engine: Engine,
        repository: Repository,
        notifier: Notifier,
        shares: TrafficBook,
        orders: OrderBook,
        drains: Drains,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance` is from 0 up to 1, anew each time."""
        self._fleet, self._engine, self._notifier = fleet, engine, notifier
        self._repository, self._drains = repository, drains
        self._shares, self._orders = shares, orders
        self._known: dict[str, Known] = {}
        """By node, its last request."""
        self._turns: dict[str, int] = {}
        self._chance, self._reading = chance, asyncio.Semaphore(READ_AT_ONCE)

    async def sync(self, call: Call) -> SyncAnswer:
        """Durable before the answer, and before it waits. What waits holds no report: thousands of them do."""
        name, raw = call.caller.who, call.raw
        call.body = None
        terms, stored = await self._hear(name, raw)
        del raw
        target = await self._wait_for_news(name, terms)
        if not self._fleet.roster.has(name):
            raise UntrustedError(f"{name!r} was revoked")
        newer = self._fleet.roster.number > terms.roster
        return SyncAnswer(
            generation=self._notifier.generation,
            target=target,
            withdrawn=await self._engine.withdrawn_of(name),
            roster=self._fleet.roster_raw if newer else None,
            repository=self._repository.number,
            stored=stored,
            addresses=self._new_addresses(terms),
            clears=await self._fleet.known_reds.clears(terms.open_reds),
            traffic=self._shares.word(name),
            orders=self._orders.told(name) if self._has_orders(name, terms) else None,
            cohort=self._drains.intent_for(terms.cohort),
        )

    async def _hear(self, name: str, raw: bytes) -> tuple[Terms, list[str]]:
        """What the node wants to know, and the hashes of its messages that are durable. The very bytes that it sent
        before, with nothing in them to be kept but that it lives, are not read again."""
        digest, number = hashlib.sha256(raw).digest(), self._fleet.roster.number
        known = self._known.get(name)
        if known is not None and known.digest == digest and known.as_of == number:
            self._drains.hear(name, known.terms.cohort)
            await self._fleet.beat(name)
            return known.terms, []
        self._known.pop(name, None)
        self._turns[name] = turn = self._turns.get(name, 0) + 1
        async with self._reading:
            terms, word, stored = await self._read(name, raw)
        await self._fleet.keep(word)
        self._drains.hear(name, terms.cohort)
        if not stored and self._turns[name] == turn:
            self._known[name] = Known(digest, number, terms)
        return terms, stored

    async def _read(self, name: str, raw: bytes) -> tuple[Terms, Word, list[str]]:
        """As `_hear`; all but the report itself is durable then."""
        asked = SyncRequest.from_bytes(raw)
        if asked.report.node != name:
            raise UntrustedError(f"{name!r} reported in the name of {asked.report.node!r}")
        stored = await self._fleet.hear_clears(name, asked.clears)
        stored += await self._fleet.hear_messages(asked.report, asked.messages)
        return _terms(asked), self._fleet.take(asked.report), stored

    def _new_addresses(self, terms: Terms) -> NodeAddresses | None:
        """Nobody is woken for them: they go along with the next answer."""
        if terms.addresses is None:
            return None
        found = self._fleet.addresses()
        return None if found.tag == terms.addresses else found

    async def _wait_for_news(self, name: str, terms: Terms) -> Target | None:
        """Every report of any node is news to somebody; here only this node's target, the roster and
        what operators publish count, so that nodes are not woken for each other's heartbeats."""
        number, cleared = self._notifier.number(name), self._fleet.known_reds.number
        target = await self._engine.target_of(name)
        loop = asyncio.get_running_loop()
        ends = loop.time() + wait_of(terms.wait_s, self._chance())
        while _held(target) == terms.holds and not self._has_news(name, terms):
            heard = terms.withdrawn
            if heard is not None and heard != await self._engine.withdrawn_of(name):
                break
            left = ends - loop.time()
            if left <= 0:
                break
            number = await self._notifier.wait_for(name, number, left)
            target = await self._engine.target_of(name)
            if terms.open_reds and self._fleet.known_reds.number != cleared:
                break
        return target

    def _has_news(self, name: str, terms: Terms) -> bool:
        published = self._repository.number != terms.repository
        share = terms.traffic is not None and terms.traffic != self._shares.word(name).tag
        intent = self._drains.intent_for(terms.cohort)
        drain = intent is not None and intent != terms.heard_cohort
        newer = self._fleet.roster.number > terms.roster
        return published or newer or share or drain or self._has_orders(name, terms)

    def _has_orders(self, name: str, terms: Terms) -> bool:
        """Others than its node has heard of; an agent from before orders says nothing of them."""
        return terms.orders is not None and self._orders.told(name).tag != terms.orders

    routes = (
        Route(
            "POST",
            "/v1/sync",
            sync,
            Allows.NODE,
            "A node's report in, its target out; waits for news when asked to.",
            body=Media("application/json", SyncRequest),
            answer=SyncAnswer,
            recorded=False,
            keyed=False,
        ),
    )


def wait_of(asked_s: float, chance: float) -> float:
    """Seconds. `chance` is from 0 up to 1."""
    return min(asked_s, LONGEST_WAIT_S) * (1 - SPREAD * chance)


def _terms(asked: SyncRequest) -> Terms:
    return Terms(
        wait_s=asked.wait_s,
        holds=asked.holds,
        roster=asked.roster,
        repository=asked.repository,
        addresses=asked.addresses,
        orders=asked.orders,
        traffic=asked.traffic,
        open_reds=tuple(asked.open_reds),
        withdrawn=asked.report.withdrawn,
        cohort=asked.report.cohort,
        heard_cohort=asked.cohort,
    )


def _held(target: Target | None) -> str | None:
    return None if target is None else target.order
