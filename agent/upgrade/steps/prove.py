"""proven: every probe again, warm, and green three times running."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.messages import Verdict

GREENS = 3
QUICK = ["gateway", "running", "memory"]


class Prove:
    phase: ClassVar = Phase.PROVEN

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps, limits = context.deps, context.deps.config.upgrade
        deps.progress("proving: all probes")
        ends = deps.clock.monotonic() + limits.prove_timeout
        document = await deps.readiness.refresh()
        greens = 0
        while greens < GREENS:
            if document.status is Verdict.GREEN:
                greens += 1
            elif deps.clock.monotonic() >= ends:
                raise StepFailed(f"readiness is {document.status}: {document.reason}")
            else:
                greens = 0
                deps.progress(f"not green yet: {document.reason}")
            if greens < GREENS:
                await deps.clock.sleep(limits.prove_interval)
                stale = [check.id for check in document.checks if check.status != "pass"]
                document = await deps.readiness.refresh(sorted({*QUICK, *stale}))
        return {
            "ready_probe_sha256": document.ready_probe_sha256,
            "evidence_sha256": document.evidence_sha256,
        }
