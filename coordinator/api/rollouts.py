"""`/v1/nodes`, `/v1/targets`, `/v1/rollouts`, `/v1/watch`: what operators see and set."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.access import Access
from coordinator.api.releases import ReleasesApi
from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout.engine import Engine
from coordinator.store.queries import Queries
from shared.errors import BadInputError, NotFoundError
from shared.http import read_wire, wire_response
from shared.rollout import TargetRequest

LONGEST_WAIT_S = 20.0
SHOWN_ROLLOUTS = 20


class RolloutsApi:
    def __init__(
        self,
        queries: Queries,
        fleet: FleetState,
        engine: Engine,
        releases: ReleasesApi,
        notifier: Notifier,
    ) -> None:
        self._queries, self._fleet, self._engine = queries, fleet, engine
        self._releases, self._notifier = releases, notifier

    def routes(self, app: web.Application, access: Access) -> None:
        add = app.router
        add.add_get("/v1/nodes", access.operators_only(self.nodes))
        add.add_post("/v1/targets", access.operators_only(self.set_target))
        add.add_get("/v1/rollouts", access.operators_only(self.rollouts))
        add.add_get("/v1/rollouts/{id}/history", access.operators_only(self.history))
        add.add_get("/v1/watch", access.operators_only(self.watch))

    async def nodes(self, _: web.Request) -> web.Response:
        fleet = await self._fleet.fleet()
        return web.json_response(
            {"nodes": [node.model_dump(mode="json") for node in fleet.nodes.values()]}
        )

    async def set_target(self, request: web.Request) -> web.Response:
        asked = await read_wire(request, TargetRequest)
        release = await self._releases.find(asked.release)
        rollout = await self._engine.start(release, asked)
        return wire_response(rollout, status=200 if asked.dry_run else 201)

    async def rollouts(self, _: web.Request) -> web.Response:
        found = await self._queries.recent_rollouts(SHOWN_ROLLOUTS)
        return web.json_response(
            {"rollouts": [rollout.model_dump(mode="json") for rollout, _ in found]}
        )

    async def history(self, request: web.Request) -> web.Response:
        rollout = request.match_info["id"]
        entries = await self._queries.history_of(rollout)
        if not entries:
            raise NotFoundError(f"no rollout {rollout[:32]!r} has a history")
        return web.json_response({"history": entries})

    async def watch(self, request: web.Request) -> web.Response:
        """The whole fleet, once it is newer than `generation`; after `LONGEST_WAIT_S` in any case."""
        text = request.query.get("generation", "0")
        if not text.isdigit() or len(text) > 18:
            raise BadInputError("generation is a number")
        await self._notifier.wait_beyond(int(text), LONGEST_WAIT_S)
        return wire_response(await self._fleet.view())
