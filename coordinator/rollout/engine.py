"""The only writer of rollouts: decides on every piece of news and once a second, with compare-and-set."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import structlog

from coordinator.fleet import FleetState
from coordinator.notifier import Notifier
from coordinator.rollout.decide import decide
from coordinator.rollout.plan import check_understood, plan_waves
from coordinator.store.queries import Queries
from shared.clock import Clock
from shared.errors import ConflictError
from shared.protocol import FIRST, ProtocolRange
from shared.release import Release, check_unexpired
from shared.report import Target
from shared.rollout import (
    NodeState,
    NodeView,
    Rollout,
    RolloutNode,
    RolloutState,
    TargetRequest,
)
from shared.wayback import foresee

log = structlog.get_logger()

TICK_S = 1.0


class Engine:
    """Holds nothing: a restarted coordinator goes on from its tables."""

    def __init__(
        self,
        queries: Queries,
        fleet: FleetState,
        notifier: Notifier,
        clock: Clock,
        speaks: ProtocolRange,
    ) -> None:
        self._queries, self._fleet, self._notifier, self._clock = queries, fleet, notifier, clock
        self._speaks = speaks

    async def run(self) -> None:
        generation = 0
        while True:
            generation = await self._notifier.wait_beyond(generation, TICK_S)
            await self.step()

    async def step(self) -> None:
        found = await self._queries.last_rollout()
        if found is None:
            return
        before, generation = found
        if before.state is not RolloutState.RUNNING and _settled(before):
            return
        after = decide(before, await self._fleet.fleet(), self._clock.now())
        if after == before:
            return
        if await self._queries.save_rollout(before, after, generation, self._clock.now()):
            if after.state is not before.state:
                log.info("rollout", id=after.id, state=after.state, reason=after.reason)
            self._notifier.notify()

    async def start(self, release: Release, request: TargetRequest) -> Rollout:
        """Plan and, unless it is a dry run, begin. Raises ConflictError when a gate is shut."""
        fleet = await self._fleet.fleet()
        now = self._clock.now()
        check_unexpired(release, now)
        if not fleet.nodes:
            raise ConflictError("no node has joined", remedy="join one: rollcall node token create")
        if reds := fleet.open_reds():
            raise ConflictError(
                f"red of {reds[0].origin}: {reds[0].reason} [{reds[0].key}]",
                remedy="when it is over clear it on that node: rollcall-agent clear KEY; or for all of them: "
                "rollcall red clear KEY",
            )
        if (agent := release.manifest.agent) is not None:
            spoken = {
                f"the agent of {view.name}": view.protocol or FIRST
                for view in fleet.nodes.values()
                if view.agent_version
            }
            check_understood(agent, {"this coordinator": self._speaks, **spoken})
        rollout = self._plan(release, request, fleet.nodes, now)
        if not request.dry_run:
            await self._queries.add_rollout(rollout)
            log.info("rollout begins", id=rollout.id, release=release.label)
            self._notifier.notify()
        return rollout

    def _plan(
        self, release: Release, request: TargetRequest, views: Mapping[str, NodeView], now: float
    ) -> Rollout:
        waves = plan_waves([(view.name, view.role) for view in views.values()], request.strategy)
        rollout = secrets.token_hex(4)
        nodes = []
        for number, wave in enumerate(waves):
            for name in wave:
                there, standing = views[name].release == release.id, views[name].standing
                nodes.append(
                    RolloutNode(
                        name=name,
                        role=views[name].role,
                        wave=number,
                        order=f"{rollout}:{name}",
                        state=NodeState.DONE if there else NodeState.WAITING,
                        reason="runs it already" if there else "",
                        since=now,
                        way_back=None
                        if there or standing is None
                        else foresee(standing, str(release.manifest.schema_versions)),
                    )
                )
        return Rollout(
            id=rollout,
            release=release.id,
            label=release.label,
            strategy=request.strategy,
            soak_s=request.soak_s,
            set_by=request.set_by,
            created=now,
            nodes=nodes,
        )

    async def target_of(self, node: str) -> Target | None:
        """The pending upgrade of a node: only while its rollout runs and it is this node's turn."""
        found = await self._queries.last_rollout()
        if found is None or found[0].state is not RolloutState.RUNNING:
            return None
        rollout = found[0]
        mine = rollout.find(node)
        if mine is None or mine.state not in (NodeState.PENDING, NodeState.MOVING):
            return None
        return Target(
            order=mine.order,
            rollout=rollout.id,
            release=rollout.release,
            set_by=rollout.set_by,
            set_at=mine.since,
            soak_s=rollout.soak_s,
        )


def _settled(rollout: Rollout) -> bool:
    """No node of an ended rollout is still on its way back."""
    return not any(node.state is NodeState.MOVING for node in rollout.nodes)
