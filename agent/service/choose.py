"""Which supervisor keeps this node's gateway: the one place that knows, and loads no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from agent.config import AgentConfig, InstallerKind, ServiceConfig, ServiceKind
from agent.layout import Layout
from agent.service.base import GatewayService
from agent.service.host import Host
from agent.service.process import ProcessService
from agent.service.supervised import SupervisedService, Supervisor
from shared.account import Account
from shared.clock import Clock
from shared.errors import ConfigError

if TYPE_CHECKING:
    from agent.service.launchctl import Target
    from agent.service.launchd import LaunchdJob

log = structlog.get_logger()


class KeptService(GatewayService, Protocol):
    async def keep(self) -> None:
        """Watch it for ever."""
        ...


async def choose_service(
    config: AgentConfig,
    layout: Layout,
    account: Account | None,
    clock: Clock,
    on_change: Callable[[], None],
    host: Host,
) -> KeptService:
    """The one that agent.toml names. Raises ConfigError when this host or this agent cannot have it."""
    kind, compose = config.service.kind, config.openclaw.compose
    if config.openclaw.installer is InstallerKind.COMPOSE and compose is not None:
        from agent.service.compose import Compose, ComposeService

        client = Compose(compose, config.gateway.home, str(layout.home))
        return ComposeService(client, clock, on_change)
    if kind is ServiceKind.PROCESS:
        return await ProcessService.open(layout.service, clock, on_change)
    supervisor: Supervisor
    if kind is ServiceKind.LAUNCHD:
        from agent.service.launchctl import Launchctl
        from agent.service.launchd import LaunchdSupervisor

        job = launchd_job(config, layout, account, host)
        program = _program(host.launchctl, "launchd", "launchctl")
        supervisor = LaunchdSupervisor(job, Launchctl(program), clock)
    else:
        if host.euid != 0:
            raise ConfigError(
                "service.kind is systemd, and this agent is not root",
                remedy='run the agent as root, or set service.kind = "process"',
            )
        from agent.service.systemctl import Systemctl
        from agent.service.systemd import SystemdSupervisor

        program = _program(host.systemctl, "systemd", "systemctl")
        name = config.service.unit_name()
        supervisor = SystemdSupervisor(name, host.units, Systemctl(program))
    await _take_over(config, layout, clock)
    service = SupervisedService(layout.service, supervisor, clock, on_change)
    await service.load()
    return service


async def _take_over(config: AgentConfig, layout: Layout, clock: Clock) -> None:
    """A gateway that the agent itself kept until agent.toml named another keeper would hold the port."""
    before = await ProcessService.open(layout.service, clock, lambda: None)
    if (running := await before.alive()) is not None:
        log.info("ending the gateway that the agent kept itself", pid=running.pid)
        await before.stop(config.gateway.stop_timeout)


def launchd_job(
    config: AgentConfig, layout: Layout, account: Account | None, host: Host
) -> LaunchdJob:
    """The gateway's job by agent.toml and this host. Raises ConfigError for a domain that this agent cannot
    serve, or that is another user's than the gateway."""
    from agent.service.launchctl import Target
    from agent.service.launchd import LaunchdJob

    service = config.service
    target = Target(service.job_domain(), service.job_label())
    uid = account.uid if account is not None else host.euid
    if target.uid is not None and target.uid != uid:
        whose = account.name if account is not None else f"uid {uid}"
        raise ConfigError(
            f"service.domain is {target.domain}, and the gateway runs as {whose}",
            remedy=f'set service.domain = "gui/{uid}", or gateway.user to that account',
        )
    if target.uid is None and host.euid != 0:
        raise ConfigError(
            "service.domain is system, and this agent is not root",
            remedy=f'run the agent as root, or set service.domain = "gui/{host.euid}"',
        )
    return LaunchdJob(target, _plist(service, target, config, host), layout.home / "gateway-logs")


def _plist(service: ServiceConfig, target: Target, config: AgentConfig, host: Host) -> Path:
    if service.plist is not None:
        return service.plist
    name = f"{target.label}.plist"
    if target.uid is None:
        return host.daemons / name
    return config.gateway.home / "Library" / "LaunchAgents" / name


def _program(found: Path | None, kind: str, name: str) -> Path:
    if found is None:
        raise ConfigError(
            f"service.kind is {kind}, and this host has no {name}",
            remedy='name the service manager that it has, or set service.kind = "process"',
        )
    return found
