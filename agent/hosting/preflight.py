"""What this host can and cannot do, looked at from inside, with a remedy for each lack.

MACOS.md lists what macOS is said to do; what can be checked without harm is checked here.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from agent.cage import gateway_account
from agent.config import load_config
from agent.hosting.checks import disk, manager, network, tools
from agent.hosting.finding import Finding, Subject, passed, unknown
from agent.layout import Layout
from agent.service.host import Host
from agent.service.jobs import AGENT_LABEL
from shared.errors import RollcallError
from shared.readiness import CheckStatus

CHECKS = {"service": manager, "tools": tools, "disk": disk, "network": network}


async def preflight(host: Host, layout: Layout) -> list[Finding]:
    """Never raises for what it finds: a check that cannot be made is unknown."""
    found, subject = await asyncio.to_thread(read_subject, host, layout)
    findings = [found]
    for name, check in CHECKS.items():
        try:
            findings += await check.look(subject)
        except (RollcallError, OSError) as error:
            findings.append(unknown(f"{name}.checks", str(error)))
    return findings


def read_subject(host: Host, layout: Layout) -> tuple[Finding, Subject]:
    """agent.toml, and what else can be looked at when it cannot be used."""
    in_job = os.environ.get("XPC_SERVICE_NAME") == AGENT_LABEL or "INVOCATION_ID" in os.environ
    subject = Subject(host, layout, None, in_job=in_job)
    try:
        config = load_config(layout.config)
        subject = replace(subject, config=config, layout=Layout(layout.home, config.openclaw.store))
        account = gateway_account(config.gateway.user, layout.config, host.euid)
    except RollcallError as error:
        finding = Finding(
            "agent.config", CheckStatus.FAIL, str(layout.config), error.message, error.remedy or ""
        )
        return finding, subject
    return passed("agent.config", str(layout.config)), replace(subject, account=account)


def necessary_missing(findings: list[Finding]) -> bool:
    return any(finding.status is CheckStatus.FAIL for finding in findings)
