"""Puts together what looks back: the history and its place on disk, what guards make of it, and the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.config import AgentConfig
from agent.readiness.all_probes import make_guards
from agent.readiness.baseline import Baseline, take_baseline
from agent.readiness.chronicle import Chronicle
from agent.readiness.history import History
from agent.readiness.saying import SaidChecks
from agent.readiness.trends import Trends
from agent.store import Store
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from shared.clock import Clock
from shared.errors import BadInputError


class Remembering:
    """`record` is the last upgrade as the journal knows it: the baseline of before it is in there."""

    def __init__(
        self, config: AgentConfig, store: Store, clock: Clock, record: Callable[[], Record | None]
    ) -> None:
        self._limits, self._clock, self._record = config.guards, clock, record
        self.history = History()
        self.chronicle = Chronicle(self.history, store, clock)
        self.trends = Trends(self.history, clock)
        self.checks = SaidChecks(clock)
        self.guards = make_guards(config, self.baseline)
        self._read: tuple[Any, Baseline | None] = (None, None)

    def take_baseline(self, release: str | None) -> dict[str, Any]:
        """What the journal keeps of how the node is now."""
        warmup = self._limits.leak_warmup
        taken = take_baseline(self.history, release, self._clock.now(), warmup)
        return taken.model_dump(mode="json")

    def baseline(self) -> Baseline | None:
        """Of before the last upgrade that came so far; None without one, and for one that an agent of before
        this has made."""
        record = self._record()
        value = None if record is None else record.fact(Phase.FROZEN, "baseline")
        if value is not self._read[0]:
            self._read = (value, _understood(value))
        return self._read[1] if value is not None else None


def _understood(value: Any) -> Baseline | None:
    try:
        return Baseline.from_value(value)
    except BadInputError:
        return None
