"""`POST /v1/sync`: a node's report in, its target and the roster out; waits for news if asked to."""

from __future__ import annotations

import asyncio

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Resource, Route
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.repository import Repository
from coordinator.rollout.engine import Engine
from shared.errors import UntrustedError
from shared.report import NodeAddresses, SyncAnswer, SyncRequest, Target

LONGEST_WAIT_S = 25.0


class SyncApi(Resource):
    def __init__(
        self, fleet: FleetState, engine: Engine, repository: Repository, notifier: Notifier
    ) -> None:
        self._fleet, self._engine, self._notifier = fleet, engine, notifier
        self._repository = repository

    async def sync(self, call: Call) -> SyncAnswer:
        name, asked = call.caller.who, call.wire(SyncRequest)
        if asked.report.node != name:
            raise UntrustedError(f"{name!r} reported in the name of {asked.report.node!r}")
        stored = await self._fleet.hear_clears(name, asked.clears)
        stored += await self._fleet.hear(asked.report, asked.messages)
        target = await self._wait_for_news(name, asked)
        if name not in {node.name for node in self._fleet.roster.live()}:
            raise UntrustedError(f"{name!r} was revoked")
        newer = self._fleet.roster.number > asked.roster
        return SyncAnswer(
            generation=self._notifier.generation,
            target=target,
            roster=self._fleet.roster_raw if newer else None,
            repository=self._repository.number,
            stored=stored,
            addresses=self._addresses(asked),
            clears=await self._fleet.known_reds.clears(asked.open_reds),
        )

    def _addresses(self, asked: SyncRequest) -> NodeAddresses | None:
        """Nobody is woken for them: they go along with the next answer."""
        if asked.addresses is None:
            return None
        found = self._fleet.addresses()
        return None if found.tag == asked.addresses else found

    async def _wait_for_news(self, name: str, asked: SyncRequest) -> Target | None:
        """Every report of any node is news to somebody; here only this node's target, the roster and
        what operators publish count, so that nodes are not woken for each other's heartbeats."""
        target = await self._engine.target_of(name)
        seen, cleared = self._notifier.generation, self._fleet.known_reds.number
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(asked.wait_s, LONGEST_WAIT_S)
        while _held(target) == asked.holds and not self._has_news(asked):
            left = ends - loop.time()
            if left <= 0:
                break
            seen = await self._notifier.wait_beyond(seen, left)
            target = await self._engine.target_of(name)
            if asked.open_reds and self._fleet.known_reds.number != cleared:
                break
        return target

    def _has_news(self, asked: SyncRequest) -> bool:
        published = self._repository.number != asked.repository
        return published or self._fleet.roster.number > asked.roster

    routes = (
        Route(
            "POST",
            "/v1/sync",
            sync,
            Allows.NODE,
            "A node's report in, its target out; waits for news when asked to.",
            body=SyncRequest,
            answer=SyncAnswer,
            recorded=False,
        ),
    )


def _held(target: Target | None) -> str | None:
    return None if target is None else target.order
