"""soaking: watched, with traffic, for the time the rollout asks. A red here is a rollback."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from agent.upgrade.context import Context, StepFailed
from agent.upgrade.lastgood import raise_bound
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence
from shared.messages import Verdict
from shared.readiness import Check, ReadinessDocument

LOOK_EVERY_S = 0.5
GRACE = 1.25
"""A guard needs readings besides time, and readings are late on a busy host."""


class Soak:
    phase: ClassVar = Phase.SOAKING

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        """What was soaked before a restart of the agent counts. A soak that is not green at its end goes on
        until it is green, or red for long enough to be believed; one whose guards have not seen enough goes on
        until they have, within bounds."""
        deps, record = context.deps, context.record
        ends = record.entered + record.target.soak_s
        limits = deps.config.probes
        patience = {Verdict.RED: limits.red_after, Verdict.UNKNOWN: limits.unknown_after}
        since: dict[Verdict, float] = {}
        while True:
            document = deps.readiness.document()
            self._bear(document, since, patience, deps.clock.monotonic())
            now = deps.clock.now()
            open_questions = [check for check in document.checks if check.inconclusive]
            waits = open_questions if now < longest_end(context) else []
            if now >= ends and document.status is Verdict.GREEN and not waits:
                await self._bound(context)
                soaked = {"soaked_s": round(now - record.entered, 1)}
                unsure = [check.id for check in open_questions]
                return {**soaked, "inconclusive": unsure} if unsure else soaked
            deps.progress(_describe(ends - now, document, waits))
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


def longest_end(context: Context) -> float:
    """Wall time until which inconclusive guards may prolong the soak: as long again as the rollout asked for, and
    in any case what a guard needs of a gateway that has just been started. Where even that was not enough,
    time is not what is missing, and the evidence names the guard. A rollout without a soak waits for nobody."""
    record, guards = context.record, context.deps.config.guards
    soak_s = record.target.soak_s
    if soak_s <= 0:
        return record.entered
    return record.entered + max(2 * soak_s, GRACE * (guards.leak_warmup + guards.leak_window))


def _describe(left: float, document: ReadinessDocument, waits: list[Check]) -> str:
    if left > 0:
        return f"soaking, {left:.0f} s left"
    if document.status is not Verdict.GREEN:
        return f"soaking on, because it is {document.status}: {document.reason}"
    return f"soaking on: {'; '.join(f'{check.id} {check.reason}' for check in waits)}"
