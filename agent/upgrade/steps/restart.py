"""restarted: a new live process that runs the target version. The outage ends.

Doctor passed before: in the rehearsal, or here where there was none.
"""

from __future__ import annotations

from typing import ClassVar

from agent.openclaw.doctor import run_doctor
from agent.openclaw.gateway import Gate
from agent.service.base import Pid
from agent.upgrade.context import Context, Deps, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from agent.upgrade.steps.snapshot import wait_port_free
from shared.readiness import CheckStatus

POLL_S = 0.05
ASK_AGAIN_S = 1.0


class Restart:
    phase: ClassVar = Phase.RESTARTED

    async def done(self, context: Context) -> Evidence | None:
        """Where nothing moved the gateway that runs is the right one already."""
        deps = context.deps
        alive = await deps.service.alive()
        if context.moves or alive is None:
            return None
        version = await deps.gateway.running_version(deps.openclaw(deps.layout.current))
        wanted = context.signed().manifest.openclaw
        return {"pid": alive.pid, "running": version, "outage_s": 0} if version == wanted else None

    async def act(self, context: Context) -> Evidence:
        deps = context.deps
        openclaw = deps.openclaw(deps.layout.current)
        if context.record.fact(Phase.VERIFIED, "rehearsed") is None:
            deps.progress("Doctor, before the start")
            doctor = await run_doctor(openclaw, timeout_s=deps.config.upgrade.doctor_timeout)
            if doctor.status is not CheckStatus.PASS:
                raise StepFailed(f"Doctor does not pass: {doctor.reason}")
        deps.progress("starting the gateway")
        pid = await start_and_wait(deps)
        ready = deps.clock.now()
        version = await ask_version(deps)
        wanted = context.signed().manifest.openclaw
        if version != wanted:
            raise StepFailed(f"{version or 'an unknown version'} is running, not {wanted}")
        return {
            "pid": pid.pid,
            "running": version,
            "outage_s": outage(context, ready),
        }


async def ask_version(deps: Deps) -> str | None:
    """The version that serves; asked again within the time that a start may take, because a busy host is no
    wrong version. None when nobody says it by then."""
    ends = deps.clock.monotonic() + deps.config.gateway.ready_timeout
    while True:
        version = await deps.gateway.running_version(deps.openclaw(deps.layout.current))
        if version is not None or deps.clock.monotonic() >= ends:
            return version
        deps.progress("asking the gateway for its version")
        await deps.clock.sleep(ASK_AGAIN_S)


async def start_and_wait(deps: Deps) -> Pid:
    """Start, then wait until that very process is ready. Raises StepFailed at the deadline, naming
    what was still missing, or when the process keeps ending. A stranger on the port is found before
    the start, so that its readiness is not taken for ours."""
    deps.readiness.pause()
    try:
        return await _start_and_wait(deps)
    finally:
        deps.readiness.resume()


async def _start_and_wait(deps: Deps) -> Pid:
    if await deps.service.alive() is None:
        await wait_port_free(deps)
    first = pid = await deps.service.start(deps.service_spec())
    ends = deps.clock.monotonic() + deps.config.gateway.ready_timeout
    restarts = 0
    while True:
        reading = await deps.gateway.readyz()
        now = await deps.service.alive()
        if now is not None and now != pid:
            pid, restarts = now, restarts + 1
        if reading.gate is Gate.READY and now == pid:
            return pid
        if restarts >= 3:
            raise StepFailed(f"the gateway ended {restarts} times before it was ready")
        if deps.clock.monotonic() >= ends:
            limit = deps.config.gateway.ready_timeout
            alive = "running" if now is not None else "not running"
            raise StepFailed(
                f"the gateway (pid {first.pid}, {alive}) was not ready within {limit:.0f} s:"
                f" {reading.reason or reading.gate}"
            )
        await deps.clock.sleep(POLL_S)


def outage(context: Context, ready_at: float) -> float | None:
    """Seconds the gateway did not answer; None when it did not run before."""
    stopped = context.record.fact(Phase.SNAPSHOTTED, "stopped_at")
    return None if stopped is None else round(max(0.0, ready_at - stopped), 2)
