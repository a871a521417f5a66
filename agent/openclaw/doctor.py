"""Doctor, understood or called unknown (OPENCLAW.md, 2).

The only form that is ever run is `doctor --lint --json`: it exists from 2026.5.28 on and repairs
nothing. Older releases have no read-only Doctor; there the answer is unknown, never green, because
plain `doctor` writes. The exit code alone decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.openclaw.cli import OpenClaw, first_object
from shared.command import Output
from shared.errors import CommandError
from shared.readiness import CheckStatus, DoctorItem

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


async def run_doctor(openclaw: OpenClaw, *, timeout_s: float) -> DoctorReading:
    try:
        return judge(await openclaw.run(*LINT, timeout_s=timeout_s))
    except CommandError as error:
        return _unknown(error.message, b"")


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
