"""soaking: watched, with traffic, for the time the rollout asks. A red here is a rollback."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.messages import Verdict

LOOK_EVERY_S = 0.5


class Soak:
    phase: ClassVar = Phase.SOAKING

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        """What was soaked before a restart of the agent counts. A soak that is not green at its end
        goes on until it is green, or red for long enough to be believed."""
        deps, record = context.deps, context.record
        ends = record.entered + record.target.soak_s
        patience = deps.config.probes.red_after
        red_since: float | None = None
        while True:
            document = deps.readiness.document()
            now = deps.clock.monotonic()
            if document.status is Verdict.RED:
                red_since = now if red_since is None else red_since
                if now - red_since >= patience:
                    raise StepFailed(f"red while soaking: {document.reason}")
            else:
                red_since = None
            left = ends - deps.clock.now()
            if left <= 0 and document.status is Verdict.GREEN:
                return {"soaked_s": round(deps.clock.now() - record.entered, 1)}
            deps.progress(
                f"soaking, {left:.0f} s left"
                if left > 0
                else f"soaking on, because it is {document.status}: {document.reason}"
            )
            await deps.clock.sleep(LOOK_EVERY_S)
