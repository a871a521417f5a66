"""Puts together what looks at the gateway's day and at its work: vitals, and the worker that this node may be."""

from __future__ import annotations

from collections.abc import Callable

from agent.conductor import Conductor
from agent.config import AgentConfig
from agent.layout import Layout
from agent.openclaw.gateway import Gateway
from agent.openclaw.tasks import Tasks, read_tasks
from agent.readiness.history import History
from agent.readiness.monitor import Monitor
from agent.service.base import GatewayService
from agent.upgrade.installers.base import Installer
from agent.vitals import Vitals
from agent.worker import Worker
from shared.clock import Clock
from shared.errors import CommandError


class Working:
    """`frozen` says whether this node must not take more work than it does."""

    def __init__(  # noqa: PLR0913 - one part out of everything that it looks at
        self,
        config: AgentConfig,
        layout: Layout,
        history: History,
        monitor: Monitor,
        conductor: Conductor,
        clock: Clock,
        *,
        service: GatewayService,
        gateway: Gateway,
        installer: Installer,
        frozen: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._current, self._clock = layout.current, clock
        self._service, self._gateway, self._installer = service, gateway, installer
        self.vitals = Vitals(
            history, clock, monitor.document, lambda: conductor.settled, service.alive
        )
        self.worker = Worker(
            config.worker,
            layout.home / "cohort.json",
            clock,
            self._release,
            self._tasks,
            lambda: gateway.is_cheap,
            frozen,
            on_change,
        )

    def _release(self) -> str | None:
        return self._current.resolve().name if self._current.exists() else None

    async def _tasks(self) -> Tasks:
        """Raises CommandError when the gateway does not say."""
        pid = await self._service.alive()
        if pid is None or not self._current.exists():
            raise CommandError("it is not running")
        openclaw = self._installer.openclaw(self._current)
        return await read_tasks(self._gateway, openclaw, self._clock.now(), pid.started)
