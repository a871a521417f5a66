"""The digest: channels, delivery queues and plugins of the running gateway, in one hash.

The real gateway has no webhook digest of its own; its `health` call has what one would cover. A
plugin that did not load is a failure: health can be green while every lane crashes (OPENCLAW.md, 6).
"""

from __future__ import annotations

from collections.abc import Callable

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.reading import Reading, unknown
from shared.canonical import canonical_json, sha256_hex
from shared.readiness import CheckStatus

COVERED = ("channels", "deliveryQueues", "plugins")


class DigestProbe:
    id = "digest"
    timeout_s = 60.0

    def __init__(
        self, gateway: Gateway, openclaw: Callable[[], OpenClaw | None], period_s: float
    ) -> None:
        self._gateway = gateway
        self._openclaw = openclaw
        self.period_s = period_s
        self.stale_after_s = 3 * period_s + self.timeout_s

    async def read(self) -> Reading:
        openclaw = self._openclaw()
        if openclaw is None:
            return unknown("no release is installed")
        health, _ = await self._gateway.health(openclaw)
        covered = canonical_json({name: health.get(name) for name in COVERED})
        plugins = health.get("plugins")
        errors = plugins.get("errors") if isinstance(plugins, dict) else None
        if errors is None:
            return unknown("the gateway does not say which plugins it has loaded")
        reason = f"plugins in error: {str(errors)[:300]}" if errors else ""
        status = CheckStatus.FAIL if errors else CheckStatus.PASS
        return Reading(status, reason, sha256_hex(covered), raw=covered)
