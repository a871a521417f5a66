"""The digest: channels, delivery queues and plugins of the running gateway, in one hash.

The real gateway has no webhook digest of its own; its `health` call has what one would cover. Of another source
any JSON is a digest. What the plugins say is judged by the probe of plugins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading
from agent.readiness.sources import Source, parse_reading
from shared.canonical import canonical_json, sha256_hex
from shared.errors import CommandError
from shared.readiness import CheckStatus

COVERED = ("channels", "deliveryQueues", "plugins")


class DigestProbe(CallProbe):
    id = "digest"

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        period_s: float,
        source: Source | None = None,
    ) -> None:
        super().__init__(gateway, openclaw, period_s)
        self._source = source

    async def ask(self, openclaw: OpenClaw) -> Reading:
        if self._source is not None:
            raw = await self._source.read(openclaw)
            return Reading(CheckStatus.PASS, "", digest_of(parse_reading(raw)), raw=raw)
        health, _ = await self._gateway.health(openclaw)
        covered = {name: health.get(name) for name in COVERED}
        return Reading(CheckStatus.PASS, "", digest_of(covered), raw=canonical_json(covered))


def digest_of(value: Any) -> str:
    """Raises CommandError for numbers that RFC 8785 has no form for."""
    try:
        return sha256_hex(canonical_json(value))
    except ValueError as error:
        raise CommandError(f"the reading cannot be hashed: {error}") from error
