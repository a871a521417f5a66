"""Plugins in step with the core, as the running gateway's own command sees it.

OpenClaw leaves plugins behind when the core moves (OPENCLAW.md, 6.12). One that the release names fails the
node; one that somebody installed by hand is a warning: it is not the release's to move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.tree import read_seal
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading
from shared.canonical import canonical_json
from shared.readiness import CheckStatus


class PluginProbe(CallProbe):
    id = "plugins"

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        current: Path,
        period_s: float,
    ) -> None:
        super().__init__(gateway, openclaw, period_s)
        self._current = current

    async def ask(self, openclaw: OpenClaw) -> Reading:
        """Releases of OpenClaw that do not compare versions say nothing, and then there is nothing to fail."""
        words = ("gateway", "status", "--deep", "--json")
        _, status = await openclaw.run_json(*words, timeout_s=self.timeout_s)
        seal = await asyncio.to_thread(read_seal, self._current.resolve())
        return judge_drifts(status, set(seal.plugins) if seal is not None else set())


def judge_drifts(status: dict[str, Any], named: set[str]) -> Reading:
    """`named` are the packages of the release's plugins."""
    about = status.get("pluginVersionDrift")
    drifts = about.get("drifts") if isinstance(about, dict) else None
    listed = [each for each in drifts if isinstance(each, dict)] if isinstance(drifts, list) else []
    raw = canonical_json(listed)
    reason = ", ".join(
        f"{each.get('pluginId')} is {each.get('installedVersion')}, core is {each.get('gatewayVersion')}"
        for each in listed
    )[:300]
    if not listed:
        return Reading(CheckStatus.PASS, raw=raw)
    ours = any(each.get("packageName") in named for each in listed)
    return Reading(CheckStatus.FAIL if ours else CheckStatus.WARN, reason, raw=raw)
