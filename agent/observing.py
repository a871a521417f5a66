"""Puts together what reads this node: probes, guards, and the document that comes of them."""

from __future__ import annotations

from agent.changes import Changes
from agent.config import AgentConfig
from agent.layout import Layout
from agent.membership import Membership
from agent.openclaw.gateway import Gateway
from agent.readiness.all_probes import make_probes, probes_of_host
from agent.readiness.logs.gateway import GatewayLogs
from agent.readiness.monitor import Monitor
from agent.remembering import Remembering
from agent.service.base import GatewayService
from agent.upgrade.installers.base import Installer
from shared.clock import Clock


class Observing:
    """`monitor` has the document; `logs` the gateway's errors."""

    def __init__(  # noqa: PLR0913 - one part out of everything that is read
        self,
        config: AgentConfig,
        layout: Layout,
        fleet: Membership,
        gateway: Gateway,
        installer: Installer,
        service: GatewayService,
        clock: Clock,
        changes: Changes,
        *,
        remembering: Remembering,
    ) -> None:
        self.logs = GatewayLogs.of(config, layout, clock)
        self.monitor = Monitor(
            fleet.name,
            [
                *make_probes(config, layout, gateway, installer, service.alive, clock),
                *probes_of_host(config, layout, clock, fleet.offsets, self.logs),
            ],
            clock,
            changes.notify,
            history=remembering.history,
            guards=remembering.guards,
        )
