"""The smoke test of a capability: the fixed verbs that its manifest names, asked until they hold or time is up."""

from __future__ import annotations

from agent.capabilities.sites import Site
from agent.openclaw.cli import OpenClaw
from agent.openclaw.doctor import run_doctor
from agent.openclaw.gateway import Gate
from agent.readiness.probes.plugins import judge_plugins
from agent.upgrade.context import Deps
from shared.capability import Capability, Smoke
from shared.errors import CommandError, RollcallError
from shared.readiness import CheckStatus

WITHIN_S = 30.0
POLL_S = 0.5


class SmokeError(RollcallError):
    """A verb of the smoke test does not hold."""

    code = "smoke-failed"


async def smoke(
    verb: Smoke, deps: Deps, openclaw: OpenClaw, site: Site, capability: Capability
) -> str:
    """What it found, for the evidence. Raises SmokeError with what was wrong last."""
    ends = deps.clock.monotonic() + WITHIN_S
    while True:
        why = await _look(verb, deps, openclaw, site, capability)
        if not why:
            return "holds"
        if deps.clock.monotonic() >= ends or verb in (Smoke.DOCTOR, Smoke.LISTED):
            raise SmokeError(f"{verb}: {why}")
        await deps.clock.sleep(POLL_S)


async def _look(
    verb: Smoke, deps: Deps, openclaw: OpenClaw, site: Site, capability: Capability
) -> str:
    """Why it does not hold; empty when it does."""
    if verb is Smoke.LISTED:
        return await site.stands(openclaw, capability)
    if verb is Smoke.READY:
        reading = await deps.gateway.readyz()
        return "" if reading.gate is Gate.READY else reading.reason or reading.gate.value
    if verb is Smoke.DOCTOR:
        doctor = await run_doctor(openclaw, timeout_s=deps.config.upgrade.doctor_timeout)
        return "" if doctor.status is CheckStatus.PASS else doctor.reason
    return await _loaded(deps, openclaw, capability.manifest.id)


async def _loaded(deps: Deps, openclaw: OpenClaw, name: str) -> str:
    try:
        health, _ = await deps.gateway.health(openclaw)
    except CommandError as error:
        return error.message
    reading = judge_plugins(health, {name})
    return "" if reading.status is CheckStatus.PASS else reading.reason
