"""soaking: watched, with traffic, for the time the rollout asks. A red here is a rollback."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.lastgood import raise_bound
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.messages import Verdict
from shared.readiness import ReadinessDocument

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
        limits = deps.config.probes
        patience = {Verdict.RED: limits.red_after, Verdict.UNKNOWN: limits.unknown_after}
        since: dict[Verdict, float] = {}
        while True:
            document = deps.readiness.document()
            self._bear(document, since, patience, deps.clock.monotonic())
            left = ends - deps.clock.now()
            if left <= 0 and document.status is Verdict.GREEN:
                await self._bound(context)
                return {"soaked_s": round(deps.clock.now() - record.entered, 1)}
            deps.progress(
                f"soaking, {left:.0f} s left"
                if left > 0
                else f"soaking on, because it is {document.status}: {document.reason}"
            )
            await deps.clock.sleep(LOOK_EVERY_S)

    async def _bound(self, context: Context) -> None:
        """From here on the newest proven release says how far back orders may lead."""
        await asyncio.to_thread(raise_bound, context.deps.layout.home, context.signed())

    def _bear(
        self,
        document: ReadinessDocument,
        since: dict[Verdict, float],
        patience: dict[Verdict, float],
        now: float,
    ) -> None:
        """Note since when it has been bad. Raises StepFailed once that is too long."""
        if document.status is Verdict.GREEN:
            since.clear()
            return
        since.setdefault(document.status, now)
        if now - since[document.status] >= patience[document.status]:
            raise StepFailed(f"{document.status} while soaking: {document.reason}")
