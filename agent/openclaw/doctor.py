"""Doctor, understood or called unknown (OPENCLAW.md, 2).

The only form that is ever run is `doctor --lint --json`: it exists from 2026.5.28 on and repairs
nothing. Older releases have no read-only Doctor; there the answer is unknown, never green, because
plain `doctor` writes. The exit code alone decides nothing.

A tenant is a profile of OpenClaw with a state of its own, `~/.openclaw-NAME` (OPENCLAW.md, 2). Each gets a Doctor,
one after the other. A profile that does not exist would only get warnings, so its folder is looked for first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.openclaw.cli import OpenClaw, first_object
from shared.command import Output
from shared.errors import CommandError, UntrustedError
from shared.readiness import CheckStatus, DoctorItem
from shared.untrusted import Folder

LINT = ("doctor", "--lint", "--json")
MIN_CHECKS = 20
FATAL_WARNINGS = {"core/doctor/gateway-config", "core/doctor/gateway-auth"}
_SEVERITIES = {"info", "warning", "error"}
DEFAULT_TENANT = "default"


FIX = ("doctor", "--fix", "--non-interactive")
FIX_ATTEMPTS = 2
"""2026.9.6 can refuse one step on its first run over state that 2026.7.35's own `doctor --fix` has
touched, and finishes on the second; a state that two runs do not carry over is restored."""


@dataclass(frozen=True)
class DoctorReading:
    status: CheckStatus
    reason: str
    items: tuple[DoctorItem, ...]
    raw: bytes


async def run_doctor(
    openclaw: OpenClaw, *, timeout_s: float, tenant: str = DEFAULT_TENANT
) -> DoctorReading:
    """Of one tenant; its state must exist."""
    profile = () if tenant == DEFAULT_TENANT else ("--profile", tenant)
    try:
        output = await openclaw.run(*profile, *LINT, timeout_s=timeout_s)
        return judge(output, tenant=tenant)
    except CommandError as error:
        return _unknown(error.message, b"")


async def run_doctors(
    openclaw: OpenClaw, tenants: Sequence[str], *, timeout_s: float
) -> DoctorReading:
    """Of the gateway's own state and of each tenant's, as one reading; `timeout_s` is for each."""
    readings = [await run_doctor(openclaw, timeout_s=timeout_s)]
    for tenant in tenants:
        missing = await asyncio.to_thread(_missing, openclaw.home / f".openclaw-{tenant}")
        if missing:
            reading = _unknown(f"{missing}; correct gateway.tenants in agent.toml", b"")
        else:
            reading = await run_doctor(openclaw, timeout_s=timeout_s, tenant=tenant)
        reason = f"tenant {tenant}: {reading.reason}" if reading.reason else ""
        readings.append(replace(reading, reason=reason))
    return _together(readings)


def _together(readings: list[DoctorReading]) -> DoctorReading:
    """The worst of them; a failure is worse than not to know."""
    ranked = (CheckStatus.FAIL, CheckStatus.UNKNOWN, CheckStatus.PASS)
    worst = min((each.status for each in readings), key=ranked.index)
    reasons = [each.reason for each in readings if each.status is worst and each.reason]
    items = tuple(item for each in readings for item in each.items)
    return DoctorReading(
        worst, "; ".join(reasons), items, b"\0".join(each.raw for each in readings)
    )


def _missing(state: Path) -> str | None:
    """Why this is no state of a tenant. Blocking."""
    try:
        with Folder.guarded(state):
            return None
    except FileNotFoundError:
        return f"{state} does not exist"
    except UntrustedError as error:
        return error.message
    except OSError as error:
        return f"{state} cannot be read: {error.strerror}"


async def fix(openclaw: OpenClaw, *, timeout_s: float) -> int:
    """OpenClaw's own migration of its state. Returns how many runs it took. Raises CommandError."""
    for attempt in range(1, FIX_ATTEMPTS + 1):
        output = await openclaw.run(*FIX, timeout_s=timeout_s)
        if output.code == 0:
            return attempt
    if output.timed_out:
        raise CommandError("openclaw doctor --fix did not end in time")
    raise CommandError(f"openclaw doctor --fix failed ({output.code}): {output.last_line()}")


def judge(output: Output, *, tenant: str = DEFAULT_TENANT) -> DoctorReading:
    """Fail on an error finding or on the two warnings that mean the gateway cannot start; unknown
    whenever the output is not one that we know how to read."""
    unreadable = _unreadable(output)
    if unreadable:
        return _unknown(unreadable, output.stdout)
    value = first_object(output.stdout) or {}
    items, messages = [], []
    for finding in value.get("findings", []):
        if not isinstance(finding, dict) or finding.get("severity") not in _SEVERITIES:
            return _unknown("Doctor reported a finding of unknown form", output.stdout)
        item = DoctorItem(
            tenant=tenant, check=str(finding.get("checkId")), severity=finding["severity"]
        )
        items.append(item)
        if item.severity == "error" or item.check in FATAL_WARNINGS:
            messages.append(f"{item.check}: {str(finding.get('message', ''))[:300]}")
    unique = tuple(sorted(set(items), key=lambda item: (item.tenant, item.check, item.severity)))
    if messages:
        return DoctorReading(CheckStatus.FAIL, "; ".join(messages[:3]), unique, output.stdout)
    if value["checksRun"] < MIN_CHECKS:
        return _unknown(f"Doctor ran only {value['checksRun']} checks", output.stdout)
    return DoctorReading(CheckStatus.PASS, "", unique, output.stdout)


def _unreadable(output: Output) -> str | None:
    """Why this output says nothing; None when it can be judged."""
    if output.timed_out:
        return f"Doctor did not end within {output.seconds:.0f} s and was killed"
    if b"unknown option" in output.stderr and b"--lint" in output.stderr:
        return "this OpenClaw has no read-only Doctor (it came with 2026.5.28)"
    if output.code not in (0, 1):
        return f"Doctor ended with {output.code}: {output.last_line()}"
    value = first_object(output.stdout)
    if value is None:
        return f"Doctor printed no JSON: {output.last_line()}"
    if value.get("error"):
        return f"Doctor could not inspect: {str(value['error'])[:300]}"
    if not isinstance(value.get("findings"), list) or not isinstance(value.get("checksRun"), int):
        return "Doctor's JSON lacks findings or checksRun"
    return None


def _unknown(reason: str, raw: bytes) -> DoctorReading:
    return DoctorReading(CheckStatus.UNKNOWN, reason, (), raw)
