"""The service manager, the gateway's job in it, and the session that a GUI domain needs (MACOS.md, 4 to 8)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.config import AgentConfig, ServiceKind
from agent.hosting.finding import Finding, Subject, passed, unknown
from agent.service.choose import launchd_job
from agent.service.jobs import AGENT_LABEL
from agent.service.launchctl import Launchctl, NoSessionError, Target
from agent.service.launchd import LaunchdJob, check_plist, read_plist
from shared.command import SYSTEM_PATH, run_command
from shared.errors import CommandError, ConfigError, RollcallError
from shared.readiness import CheckStatus

FDESETUP = Path("/usr/bin/fdesetup")


async def look(subject: Subject) -> list[Finding]:
    found = [_account(subject)]
    if subject.kind is ServiceKind.SYSTEMD or (
        subject.kind is ServiceKind.PROCESS and not subject.host.is_mac
    ):
        return [*found, await _systemd(subject)]
    program = subject.host.launchctl
    if program is None:
        status = CheckStatus.FAIL if subject.kind is ServiceKind.LAUNCHD else CheckStatus.WARN
        return [
            *found,
            Finding(
                "service.manager",
                status,
                "no launchctl",
                "nothing here starts the agent at boot",
                'on a Mac it is /bin/launchctl; elsewhere set service.kind to "systemd" or "process"',
            ),
        ]
    launchctl = Launchctl(program)
    found += [passed("service.manager", str(program)), await _agent_job(launchctl)]
    if subject.kind is ServiceKind.LAUNCHD and subject.config is not None:
        found += await _gateway_job(subject, subject.config, launchctl)
    return found


def _account(subject: Subject) -> Finding:
    if subject.host.euid == 0:
        where = "under the service manager" if subject.in_job else "from a terminal"
        return passed("host.account", f"root, {where}")
    return Finding(
        "host.account",
        CheckStatus.WARN,
        f"uid {subject.host.euid}",
        "an agent that is not root shares its account with the gateway, and on macOS 15 local"
        " network privacy may silently cut it off from its peers",
        "install it as a daemon: sudo rollcall-agent install",
    )


async def _systemd(subject: Subject) -> Finding:
    needed = subject.kind is ServiceKind.SYSTEMD
    bad = CheckStatus.FAIL if needed else CheckStatus.WARN
    remedy = "" if needed else "start the agent at boot with what this host has"
    program = subject.host.systemctl
    if program is None:
        return Finding("service.manager", bad, "no systemctl", "no service manager", remedy)
    output = await run_command(
        [str(program), "is-system-running"], env={"PATH": SYSTEM_PATH}, timeout_s=20
    )
    state = output.stdout.decode("utf-8", "replace").strip()
    if state in ("running", "degraded", "starting", "maintenance"):
        return passed("service.manager", f"systemd, {state}")
    said = state or output.last_line()
    return Finding("service.manager", bad, f"systemctl: {said}", "systemd does not run", remedy)


async def _agent_job(launchctl: Launchctl) -> Finding:
    target = Target("system", AGENT_LABEL)
    try:
        job = await launchctl.job(target)
        disabled = await launchctl.disabled(target)
    except RollcallError as error:
        return unknown("agent.job", str(error))
    if disabled:
        return Finding(
            "agent.job",
            CheckStatus.FAIL,
            "disabled",
            "somebody switched it off, in Login Items or with launchctl disable",
            "rollcall-agent start",
        )
    if job is None:
        return Finding(
            "agent.job",
            CheckStatus.WARN,
            "not loaded",
            "not installed",
            "sudo rollcall-agent install",
        )
    if job.pid is None:
        reason = f"launchd says {job.state}, last exit {job.last_exit}"
        return Finding("agent.job", CheckStatus.FAIL, job.state, reason, "read <home>/logs")
    return passed("agent.job", f"pid {job.pid}")


async def _gateway_job(
    subject: Subject, config: AgentConfig, launchctl: Launchctl
) -> list[Finding]:
    try:
        job = launchd_job(config, subject.layout, subject.account, subject.host)
    except ConfigError as error:
        return [
            Finding("gateway.domain", CheckStatus.FAIL, "", error.message, error.remedy or ""),
        ]
    found = [await _domain(launchctl, job.target), await _override(launchctl, job.target)]
    if not job.ours:
        found.append(await asyncio.to_thread(_openclaws_plist, job))
    if subject.host.is_mac and job.target.uid is not None:
        found.append(await _vault())
    return found


async def _domain(launchctl: Launchctl, target: Target) -> Finding:
    try:
        reached = await launchctl.has_domain(target.domain)
    except RollcallError as error:
        return unknown("gateway.domain", str(error))
    if reached:
        return passed("gateway.domain", target.domain)
    missing = NoSessionError(target.domain)
    return Finding(
        "gateway.domain",
        CheckStatus.FAIL,
        "booted, no session",
        missing.message,
        missing.remedy or "",
    )


async def _override(launchctl: Launchctl, target: Target) -> Finding:
    """Each start enables it; that it is disabled now says that somebody, or OpenClaw, meant it."""
    try:
        disabled = await launchctl.disabled(target)
    except RollcallError as error:
        return unknown("gateway.override", str(error))
    if not disabled:
        return passed("gateway.override", "not disabled")
    return Finding(
        "gateway.override",
        CheckStatus.WARN,
        f"{target} is disabled",
        "the agent disables it while it is stopped for an upgrade, OpenClaw when it refuses the state's"
        " schema, people in Login Items; it does not start at boot",
        f"the agent's next start enables it; by hand: launchctl enable {target}",
    )


def _openclaws_plist(job: LaunchdJob) -> Finding:
    try:
        check_plist(job)
        words = [str(word) for word in read_plist(job.plist).get("ProgramArguments", [])]
    except (ConfigError, OSError) as error:
        remedy = getattr(error, "remedy", None) or ""
        return Finding(
            "gateway.plist", CheckStatus.FAIL, str(job.plist), getattr(error, "message", ""), remedy
        )
    versioned = [word for word in words if "node_modules" in word and "/current/" not in word]
    if versioned:
        return Finding(
            "gateway.plist",
            CheckStatus.FAIL,
            versioned[0],
            "the plist leads to one installed version, so an upgrade would start the old one again",
            "openclaw gateway install --force --wrapper FILE, with the wrapper that install writes",
        )
    return passed("gateway.plist", str(job.plist))


async def _vault() -> Finding:
    try:
        output = await run_command(
            [str(FDESETUP), "status"], env={"PATH": SYSTEM_PATH}, timeout_s=20
        )
    except CommandError as error:
        return unknown("host.filevault", str(error))
    said = output.last_line()
    if "is On" not in said:
        return passed("host.filevault", said)
    return Finding(
        "host.filevault",
        CheckStatus.WARN,
        said,
        "after a restart the gateway waits for a person: its domain exists only after a login",
        'fdesetup authrestart for planned restarts, or service.domain = "system"',
    )
