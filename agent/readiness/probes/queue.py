"""The queue snapshot: how much is in hand, against the guard's depth (seed 001: 500).

The gateway's own is `queueSize` of `gateway.restart.preflight`; another source must give an object with `depth`,
or with such `counts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.guards import Threshold
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading
from agent.readiness.sources import Source, parse_reading
from shared.errors import CommandError
from shared.readiness import CheckStatus


class QueueProbe(CallProbe):
    id = "queue"

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        period_s: float,
        limit: int,
        source: Source | None = None,
    ) -> None:
        super().__init__(gateway, openclaw, period_s)
        self._threshold = Threshold(limit)
        self._source = source

    async def ask(self, openclaw: OpenClaw) -> Reading:
        if self._source is not None:
            raw = await self._source.read(openclaw)
            return self._judge(depth_of(parse_reading(raw)), raw)
        queue = await self._gateway.queue(openclaw)
        return self._judge(float(queue.depth), queue.raw)

    def _judge(self, depth: float, raw: bytes) -> Reading:
        status = self._threshold.judge(depth)
        limit = self._threshold.limit
        deep = status is CheckStatus.FAIL
        return Reading(
            status,
            f"{depth:g} operations are queued or in hand; the limit is {limit:g}" if deep else "",
            depth,
            "operations",
            limit,
            raw=raw,
            series={"queue_depth": depth},
        )


def depth_of(value: Any) -> float:
    """Raises CommandError for another form."""
    if isinstance(value, dict):
        counts = value.get("counts")
        counts = counts if isinstance(counts, dict) else {}
        nested = counts.get("queueSize", counts.get("totalActive"))
        depth: Any = value.get("depth", nested)
        known = isinstance(depth, int | float) and not isinstance(depth, bool)
        if known and math.isfinite(depth) and depth >= 0:
            return float(depth)
    raise CommandError("the reading has no depth: an object with a number `depth` is needed")
