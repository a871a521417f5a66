"""The jobs of a node: the agent, the watchdog that brings it back, and the gateway.

The agent is started through a launcher that is never replaced: Login Items and the firewall know a program by
its file (MACOS.md, 3 and 9).
"""

from __future__ import annotations

from pathlib import Path

from agent.service.base import ServiceSpec
from agent.service.units import Unit
from shared.plist import PREFIX, Job, ProcessType

AGENT_LABEL = f"{PREFIX}agent"
WATCHDOG_LABEL = f"{PREFIX}watchdog"
GATEWAY_LABEL = f"{PREFIX}gateway"
AGENT_UNIT = "rollcall-agent.service"
WATCH_EVERY_S = 60
GATEWAY_EXIT_S = 30


def agent_job(launcher: Path, home: Path) -> Job:
    """Nothing that the agent starts is in its process group: npm, Doctor and a gateway of ours lead
    sessions of their own, so launchd's group kill reaches the agent alone."""
    return Job(
        AGENT_LABEL,
        (str(launcher), "run", "--home", str(home)),
        printed=home / "logs" / "agent.printed.log",
    )


def watchdog_job(launcher: Path, home: Path) -> Job:
    """KeepAlive has failed to relaunch; a job of its own looks after it (MACOS.md, 6)."""
    return Job(
        WATCHDOG_LABEL,
        (str(launcher), "watchdog", "--home", str(home)),
        printed=home / "logs" / "watchdog.printed.log",
        every_s=WATCH_EVERY_S,
        process_type=ProcessType.BACKGROUND,
    )


def gateway_job(label: str, spec: ServiceSpec, *, in_system_domain: bool) -> Job:
    """In a GUI domain the job runs as that domain's user without being told."""
    user = spec.account.name if spec.account is not None and in_system_domain else None
    return Job(
        label,
        spec.argv,
        printed=spec.log,
        env=spec.env,
        cwd=spec.cwd,
        exit_timeout_s=GATEWAY_EXIT_S,
        user=user,
    )


def agent_unit(launcher: Path, home: Path) -> Unit:
    """systemd ends by control group, not by session: a gateway that the agent keeps itself must stay."""
    return Unit(
        "Rollcall agent",
        (str(launcher), "run", "--home", str(home)),
        home / "logs" / "agent.printed.log",
        whole_group=False,
    )
