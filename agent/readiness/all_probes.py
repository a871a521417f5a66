"""Every probe of a node, with the periods and limits of its agent.toml."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from agent.config import AgentConfig
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.baseline import Baseline
from agent.readiness.footprint import FamilyMeter
from agent.readiness.guards import Guard
from agent.readiness.guards.growth import GrowthGuard
from agent.readiness.guards.leak import LeakGuard, LeakLimits
from agent.readiness.guards.throughput import ThroughputGuard
from agent.readiness.logs.gateway import GatewayLogs
from agent.readiness.probes.clock import ClockProbe
from agent.readiness.probes.digest import DigestProbe
from agent.readiness.probes.disk import DiskProbe
from agent.readiness.probes.doctor import DoctorProbe
from agent.readiness.probes.gateway import GatewayProbe
from agent.readiness.probes.host import HostProbe
from agent.readiness.probes.logs import LogProbe
from agent.readiness.probes.loop import LoopProbe
from agent.readiness.probes.memory import MemoryProbe
from agent.readiness.probes.p95 import P95Probe
from agent.readiness.probes.plugins import PluginProbe
from agent.readiness.probes.queue import QueueProbe
from agent.readiness.probes.running import RunningProbe
from agent.readiness.probes.tasks import TaskReader
from agent.readiness.probes.throughput import ThroughputProbe
from agent.readiness.probes.tree import TreeProbe
from agent.readiness.reading import Probe
from agent.readiness.sources import make_source
from agent.service.base import Pid
from agent.upgrade.installers.base import Installer
from shared.clock import Clock


def make_guards(config: AgentConfig, baseline: Callable[[], Baseline | None]) -> list[Guard]:
    """What looks back further than one reading. `baseline` is of before the last upgrade."""
    limits = config.guards
    return [
        LeakGuard(
            LeakLimits(
                limits.memory_bytes, limits.leak_warmup, limits.leak_window, limits.leak_horizon
            )
        ),
        GrowthGuard(
            baseline,
            times=limits.memory_growth,
            warmup_s=limits.leak_warmup,
            window_s=limits.leak_window,
        ),
        ThroughputGuard(limits.throughput_fraction),
    ]


def make_probes(
    config: AgentConfig,
    layout: Layout,
    gateway: Gateway,
    installer: Installer,
    alive: Callable[[], Awaitable[Pid | None]],
    clock: Clock,
) -> list[Probe]:
    times, limits = config.probes, config.guards

    def current() -> OpenClaw | None:
        return installer.openclaw(layout.current) if layout.current.exists() else None

    return [
        TreeProbe(
            layout.current,
            times.tree_every,
            installer.drift,
            sweep_every_s=times.tree_sweep_every,
            monotonic=clock.monotonic,
        ),
        GatewayProbe(gateway, current, times.gateway_every, limits.loop_p99_ms),
        RunningProbe(gateway, current, alive, times.gateway_every),
        MemoryProbe(
            current,
            alive,
            FamilyMeter(clock.monotonic),
            times.memory_every,
            limits.memory_bytes,
        ),
        *probes_of_work(config, layout, gateway, current, alive, clock),
    ]


def probes_of_work(
    config: AgentConfig,
    layout: Layout,
    gateway: Gateway,
    current: Callable[[], OpenClaw | None],
    alive: Callable[[], Awaitable[Pid | None]],
    clock: Clock,
) -> list[Probe]:
    """What the running gateway says of itself and of its work."""
    times, limits = config.probes, config.guards
    deadline = config.upgrade.doctor_timeout
    queue, digest = (make_source(each, gateway.client) for each in (times.queue, times.digest))
    tasks = TaskReader(gateway, current, alive, clock, limits.leak_warmup)
    return [
        DoctorProbe(current, times.doctor_every, deadline, config.gateway.tenants),
        QueueProbe(gateway, current, times.queue_every, limits.queue_depth, queue),
        DigestProbe(gateway, current, times.queue_every, digest),
        PluginProbe(
            gateway,
            current,
            alive,
            layout.current,
            clock,
            times.queue_every,
            times.plugins_every,
        ),
        ThroughputProbe(tasks, times.tasks_every, limits.throughput_per_minute),
        P95Probe(tasks, times.tasks_every, limits.p95_ms),
    ]


def probes_of_host(
    config: AgentConfig,
    layout: Layout,
    clock: Clock,
    offsets: Callable[[], Mapping[str, float]],
    logs: GatewayLogs,
) -> list[Probe]:
    """What is read of the host, of the gateway's logs, and of the agent itself."""
    times, limits = config.probes, config.guards
    return [
        HostProbe(times.host_every, limits.memory_percent),
        DiskProbe(
            {
                "the agent's home": layout.home,
                "the gateway's state": config.gateway.state,
                "the store of releases": layout.releases,
            },
            layout.scratch,
            times.disk_every,
            limits.disk_free,
            limits.disk_latency_ms,
        ),
        ClockProbe(clock, offsets, times.clock_every, limits.clock_skew),
        LoopProbe(times.loop_every, limits.agent_loop_ms),
        LogProbe(
            logs,
            layout.current,
            clock,
            period_s=times.logs_every,
            limit=limits.new_errors,
            judged_for_s=limits.new_errors_for,
        ),
    ]
