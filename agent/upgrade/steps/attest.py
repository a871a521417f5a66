"""attested: every live peer has looked at this node itself and signed that it is green (P2)."""

from __future__ import annotations

from typing import ClassVar

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase
from agent.upgrade.steps.base import Evidence


class Attest:
    phase: ClassVar = Phase.ATTESTED

    async def done(self, context: Context) -> Evidence | None:
        return None

    async def act(self, context: Context) -> Evidence:
        deps = context.deps
        deps.progress("waiting for the peers to look")
        names = await deps.attestors.collect(
            context.record.target.order,
            context.signed(),
            deps.readiness.document().ready_probe_sha256,
            deps.config.upgrade.attest_timeout,
        )
        return {"attested_by": names}
