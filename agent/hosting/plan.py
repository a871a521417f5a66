"""What installing the agent on this host comes to: files and commands, decided before anything is done."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.config import AgentConfig, ServiceKind
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.service.choose import launchd_job
from agent.service.host import Host
from agent.service.jobs import (
    AGENT_LABEL,
    AGENT_UNIT,
    WATCHDOG_LABEL,
    agent_job,
    agent_unit,
    watchdog_job,
)
from agent.service.units import UNIT_MODE
from agent.service.wrapper import WRAPPER_MODE, wrapper_script
from shared.account import Account
from shared.command import CHILD_OF
from shared.errors import RollcallError
from shared.plist import PLIST_MODE

DOMAIN = "system"


@dataclass(frozen=True)
class File:
    path: Path
    data: bytes
    mode: int


@dataclass(frozen=True)
class Plan:
    """`labels`: launchd's jobs in the order in which they are started; empty for systemd. `hints`: what is left
    for a person to do."""

    files: tuple[File, ...]
    commands: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def shown(self) -> dict[str, object]:
        return {
            "files": [
                {"path": str(file.path), "mode": f"{file.mode:04o}", "text": file.data.decode()}
                for file in self.files
            ],
            "commands": [list(command) for command in self.commands],
            "hints": list(self.hints),
        }


def plan_install(
    host: Host, layout: Layout, launcher: Path, config: AgentConfig, account: Account | None
) -> Plan:
    wrapper, hints = _wrapper(host, layout, config, account)
    if not host.is_mac:
        unit = File(host.units / AGENT_UNIT, agent_unit(launcher, layout.home).render(), UNIT_MODE)
        verbs = (("daemon-reload",), ("enable", AGENT_UNIT), ("restart", AGENT_UNIT))
        return Plan((unit,), tuple(("systemctl", *verb) for verb in verbs))
    jobs = (agent_job(launcher, layout.home), watchdog_job(launcher, layout.home))
    files = tuple(
        File(host.daemons / f"{job.label}.plist", job.render(), PLIST_MODE) for job in jobs
    )
    commands = [
        command
        for job, file in zip(jobs, files, strict=True)
        for command in (
            ("launchctl", "enable", f"{DOMAIN}/{job.label}"),
            ("launchctl", "bootstrap", DOMAIN, str(file.path)),
        )
    ]
    return Plan((*wrapper, *files), tuple(commands), (AGENT_LABEL, WATCHDOG_LABEL), hints)


def plan_uninstall(host: Host) -> Plan:
    """The gateway's job stays: it serves without an agent."""
    if not host.is_mac:
        unit = File(host.units / AGENT_UNIT, b"", UNIT_MODE)
        verbs = (("disable", AGENT_UNIT), ("stop", AGENT_UNIT), ("daemon-reload",))
        return Plan((unit,), tuple(("systemctl", *verb) for verb in verbs))
    labels = (WATCHDOG_LABEL, AGENT_LABEL)
    files = tuple(File(host.daemons / f"{label}.plist", b"", PLIST_MODE) for label in labels)
    commands = tuple(("launchctl", "bootout", f"{DOMAIN}/{label}") for label in labels)
    return Plan(files, commands, labels)


def _wrapper(
    host: Host, layout: Layout, config: AgentConfig, account: Account | None
) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """Where OpenClaw's own LaunchAgent is driven: what it is to start, and how OpenClaw is told."""
    if config.service.kind is not ServiceKind.LAUNCHD:
        return (), ()
    job = launchd_job(config, layout, account, host)
    if job.ours:
        return (), ()
    tools = config.openclaw.tools(layout, account)
    environment = OpenClaw(tools, layout.current, config.gateway.home).environment()
    env = {name: value for name, value in environment.items() if name != CHILD_OF}
    path = layout.home / "bin" / "openclaw-gateway"
    script = wrapper_script(tools.node, layout.current, env)
    hint = f"as the gateway's user, once: openclaw gateway install --force --wrapper '{path}'"
    return (File(path, script, WRAPPER_MODE),), (hint,)


def obstacles(host: Host, layout: Layout, launcher: Path) -> list[RollcallError]:
    """What would make an install fail, or make root run what others may change."""
    found = [*_host_obstacles(host), *_launcher_obstacles(launcher)]
    if not layout.node_file.is_file():
        found.append(
            RollcallError(
                f"{layout.home} has joined no fleet", remedy="first: rollcall-agent join TOKEN"
            )
        )
    return found


def _host_obstacles(host: Host) -> list[RollcallError]:
    program = host.launchctl if host.is_mac else host.systemctl
    name, folder = ("launchctl", host.daemons) if host.is_mac else ("systemctl", host.units)
    found = []
    if host.euid != 0:
        found.append(
            RollcallError(f"this needs root: it writes into {folder}", remedy="try with sudo")
        )
    if program is None:
        found.append(
            RollcallError(
                f"this host has no {name}", remedy="start `rollcall-agent run` with what it has"
            )
        )
    return found


def _launcher_obstacles(launcher: Path) -> list[RollcallError]:
    """launchd runs it as root at every boot: nobody else may be able to change it."""
    if not launcher.is_absolute() or launcher.name.startswith("python"):
        return [
            RollcallError(
                f"{launcher} is no launcher: it must be an absolute path of a file by its own name",
                remedy="name it with --launcher",
            )
        ]
    try:
        info, folder = launcher.stat(), launcher.parent.stat()
    except OSError as error:
        reason = f"the launcher {launcher} cannot be used: {error.strerror}"
        return [RollcallError(reason, remedy="name it with --launcher")]
    if not stat.S_ISREG(info.st_mode) or not os.access(launcher, os.X_OK):
        return [RollcallError(f"{launcher} is no program", remedy=f"chmod 755 {launcher}")]
    if any(each.st_mode & 0o022 or each.st_uid != 0 for each in (info, folder)):
        return [
            RollcallError(
                f"others than root may change {launcher} or its folder, and root would run it",
                remedy=f"chown root {launcher} {launcher.parent}; chmod go-w the same",
            )
        ]
    return []
