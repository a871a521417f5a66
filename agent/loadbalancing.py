"""Puts together what load balancers see of this node: its weight, and the door that `agent-check` asks at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from agent.agentcheck import AgentCheck, Answers, Asked
from agent.balancers import Balancers, Settling, Via
from agent.config import AgentConfig
from agent.layout import Layout
from agent.traffic import Traffic
from shared.clock import Clock
from shared.readiness import ReadinessDocument


class LoadBalancing:
    """`askers` knows who asks; `traffic` is the weight that they are told."""

    def __init__(
        self, config: AgentConfig, layout: Layout, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._api, self._clock = config.api, clock
        limits = Settling(config.upgrade.settle_every, config.upgrade.settle)
        self.askers = Balancers(clock, limits)
        self.traffic = Traffic(layout.home / "traffic.json", on_change, self.askers, clock)

    async def open(
        self,
        stack: AsyncExitStack,
        document: Callable[[], ReadinessDocument],
        weight: Callable[[], int],
    ) -> dict[str, str]:
        """Listen, if anybody is to ask; `weight` is what they are told. Returns the address, by its name among the
        agent's addresses."""
        host, port = self._api.agent_check_host or self._api.host, self._api.agent_check_port
        self.askers.open(weights=port is not None)
        if port is None:
            return {}
        line = Answers(document, weight, self._clock).now
        answered = partial(self.askers.answered, Via.AGENT_CHECK)
        door = AgentCheck(host, port, Asked(line, answered, self._clock))
        await door.start()
        stack.push_async_callback(door.stop)
        return {"agent-check": f"tcp://{host}:{door.port}"}

    def told_readiness(self, address: str | None, told: str) -> None:
        """One answer of `/readyz`."""
        self.askers.answered(Via.READYZ, address or "", told, self._clock.monotonic())
