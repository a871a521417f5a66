"""Puts together all that this node does with its peers: find them, talk with them, warn them and be warned, clear,
attest, and compare itself with them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import structlog

from agent.alarm import Alarms
from agent.changes import Changes
from agent.clearing import OperatorClears
from agent.config import AgentConfig
from agent.discovering import Discovering
from agent.freezes import Freezes, HandFreeze
from agent.layout import Layout
from agent.membership import Membership
from agent.peering import Peering
from agent.peers.asked import Operations
from agent.peers.attest import Attestor
from agent.peers.compare import Comparer
from agent.peers.directory import Directory
from agent.readiness.monitor import Monitor
from agent.store import Store
from agent.trust import Trust
from shared.clock import Clock
from shared.errors import RollcallError
from shared.messages import Message, Proven

log = structlog.get_logger()

KEPT_S = 30 * 86400.0
TIDY_EVERY_S = 86400.0


class Company:
    """`has_list`: whether the coordinator is there; `settled`: whether no upgrade moves this node."""

    def __init__(  # noqa: PLR0913 - one part out of everything that it joins
        self,
        config: AgentConfig,
        layout: Layout,
        trust: Trust,
        store: Store,
        fleet: Membership,
        directory: Directory,
        clock: Clock,
        *,
        monitor: Monitor,
        hand: HandFreeze,
        changes: Changes,
        epoch: int,
        has_list: Callable[[], bool],
        settled: Callable[[], bool],
    ) -> None:
        self._trust, self._fleet, self._directory = trust, fleet, directory
        self._changes, self._clock, self.monitor = changes, clock, monitor
        transport, links, probes = fleet.transport, fleet.links, config.probes
        self._peering = Peering(
            config.peers,
            trust,
            store,
            transport,
            directory,
            links,
            clock,
            epoch=epoch,
            on_message=self._heard,
            on_change=changes.notify,
        )
        self.mesh, self.liveness = self._peering.mesh, self._peering.liveness
        self.listen, self.leave = self._peering.listen, self.liveness.leave
        self.link_lost = self._peering.link_lost
        self.discovering = Discovering(
            config.peers,
            layout,
            trust,
            directory,
            links,
            clock,
            on_found=self.mesh.peer_found,
            has_list=has_list,
        )
        self.clears = OperatorClears(
            trust,
            store,
            self.mesh,
            transport,
            clock,
            fleet.releases.root,
            links.overlay.chosen,
            every_s=config.peers.sync_every,
        )
        self.attestor = Attestor(
            trust, self.mesh, transport, store, clock, monitor.document, fleet.releases.signed
        )
        self.freezes = Freezes(hand, self.mesh, trust.name)
        self.alarms = Alarms(
            self.mesh,
            store,
            self.freezes,
            clock,
            red_after_s=probes.red_after,
            unknown_after_s=probes.unknown_after,
        )
        self._comparer = Comparer(
            trust,
            transport,
            clock,
            self.alarms,
            monitor.document,
            settled,
            monitor.refresh_facts,
            lasts_s=probes.mismatch_after,
        )

    async def open(self, stack: AsyncExitStack) -> None:
        await self._peering.open(stack)
        await self.discovering.open(stack)

    def operations(self) -> list[Operations]:
        """What peers may ask for."""
        parts = (self._peering, self.clears, self.discovering)
        return [part.operations() for part in parts]

    def work(self, port: int) -> dict[str, Coroutine[Any, Any, None]]:
        """What goes on for ever, by name. `port` is that of the door for peers."""
        return {
            "mesh": self._peering.run(),
            "compare": self._comparer.run(),
            "clears": self.clears.run(),
            "roster": self._fleet.gossip.run(),
            "discovery": self.discovering.run(port),
            "housekeeping": self._tidy(),
        }

    async def _tidy(self) -> None:
        while True:
            try:
                await self.mesh.prune(self._clock.now() - KEPT_S)
            except RollcallError as error:
                log.warning("old messages are kept", reason=str(error))
            await self._clock.sleep(TIDY_EVERY_S)

    def link_up(self, peer: str) -> None:
        self._peering.link_up(peer)
        self.discovering.link_up(peer)

    def reaches_somebody(self) -> bool:
        return any(self._directory.how(name) for name in self._trust.peer_names())

    def _heard(self, message: Message) -> None:
        """A new message of a peer; what it freezes is frozen already. A claim is not worth telling: whoever made it
        tells it, and what this node signs for it will be news."""
        self.attestor.heard(message)
        if not isinstance(message.payload.body, Proven):
            self._changes.notify()
