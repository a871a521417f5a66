"""The digest: channels, delivery queues and plugins of the running gateway, in one hash.

The real gateway has no webhook digest of its own; its `health` call has what one would cover. A
plugin that did not load is a failure: health can be green while every lane crashes (OPENCLAW.md, 6). Of another
source any JSON is a digest; only its hash is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading, unknown
from agent.readiness.sources import Source, parse_reading
from shared.canonical import canonical_json, sha256_hex
from shared.errors import CommandError
from shared.readiness import CheckStatus

COVERED = ("channels", "deliveryQueues", "plugins")
SHOWN = 3


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
        return judge_health(health)


def digest_of(value: Any) -> str:
    """Raises CommandError for numbers that RFC 8785 has no form for."""
    try:
        return sha256_hex(canonical_json(value))
    except ValueError as error:
        raise CommandError(f"the reading cannot be hashed: {error}") from error


def judge_health(health: dict[str, Any]) -> Reading:
    """`health` is the gateway's own answer. Plugins that are merely unavailable are a warning."""
    plugins = health.get("plugins")
    plugins = plugins if isinstance(plugins, dict) else {}
    errors, loaded = plugins.get("errors"), plugins.get("loaded")
    if not isinstance(errors, list) or not isinstance(loaded, list):
        return unknown("the gateway does not say which plugins it has loaded")
    covered = canonical_json({name: health.get(name) for name in COVERED})
    status, reason = CheckStatus.PASS, ""
    if errors:
        status, reason = CheckStatus.FAIL, f"plugins in error: {_named(errors)}"
    elif plugins.get("unavailable"):
        status, reason = (
            CheckStatus.WARN,
            f"plugins not available: {_named(plugins['unavailable'])}",
        )
    return Reading(status, reason, sha256_hex(covered), raw=covered)


def _named(listed: Any) -> str:
    """`id (why)` of the first few, for a person."""
    found = listed if isinstance(listed, list) else [listed]
    shown = ", ".join(_named_one(each) for each in found[:SHOWN])
    more = len(found) - SHOWN
    return f"{shown}, and {more} more" if more > 0 else shown


def _named_one(about: Any) -> str:
    if not isinstance(about, dict):
        return str(about)[:100]
    name = str(about.get("id", about.get("pluginId", "a plugin")))[:60]
    why = about.get("error", about.get("message", about.get("reason")))
    return f"{name} ({str(why)[:160]})" if why else name
