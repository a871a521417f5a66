"""What a step is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from agent.upgrade.context import Context
from agent.upgrade.phases import Phase

Evidence = dict[str, Any]


class Step(Protocol):
    phase: ClassVar[Phase]

    async def done(self, context: Context) -> Evidence | None:
        """Evidence when the phase is already true, so that a restart does not repeat it."""
        ...

    async def act(self, context: Context) -> Evidence:
        """Make it true. Raises RollcallError with the reason when that fails."""
        ...
