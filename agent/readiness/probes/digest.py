"""The digest: channels, delivery queues and plugins of the running gateway, in one hash.

The real gateway has no webhook digest of its own; its `health` call has what one would cover. A
plugin that did not load is a failure: health can be green while every lane crashes (OPENCLAW.md, 6).
"""

from __future__ import annotations

from agent.openclaw.cli import OpenClaw
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading, unknown
from shared.canonical import canonical_json, sha256_hex
from shared.readiness import CheckStatus

COVERED = ("channels", "deliveryQueues", "plugins")


class DigestProbe(CallProbe):
    id = "digest"

    async def ask(self, openclaw: OpenClaw) -> Reading:
        health, _ = await self._gateway.health(openclaw)
        covered = canonical_json({name: health.get(name) for name in COVERED})
        plugins = health.get("plugins")
        errors = plugins.get("errors") if isinstance(plugins, dict) else None
        if errors is None:
            return unknown("the gateway does not say which plugins it has loaded")
        reason = f"plugins in error: {str(errors)[:300]}" if errors else ""
        status = CheckStatus.FAIL if errors else CheckStatus.PASS
        return Reading(status, reason, sha256_hex(covered), raw=covered)
