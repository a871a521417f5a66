"""Plugins: loaded or in error, as the running gateway says; and in step with the core, as its CLI finds.

Health can be green while every lane crashes for want of a plugin (OPENCLAW.md, 6.13), and OpenClaw leaves
plugins behind when the core moves (6.12). One that the release names fails the node when it is behind; one that
somebody installed by hand is a warning: it is not the release's to move. To compare versions is seconds of CPU:
that is done once for each process of the gateway, and hourly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gateway
from agent.openclaw.tree import plugin_ids, read_seal
from agent.readiness.probes.call import CallProbe
from agent.readiness.reading import Reading, unknown
from agent.service.base import Pid
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.readiness import CheckStatus

SHOWN = 3


class PluginProbe(CallProbe):
    id = "plugins"

    def __init__(
        self,
        gateway: Gateway,
        openclaw: Callable[[], OpenClaw | None],
        alive: Callable[[], Awaitable[Pid | None]],
        current: Path,
        clock: Clock,
        period_s: float,
        drift_every_s: float,
    ) -> None:
        super().__init__(gateway, openclaw, period_s)
        self._alive, self._current, self._clock = alive, current, clock
        self._drift_every_s = drift_every_s
        self._drift: tuple[object, float, Reading] | None = None

    async def ask(self, openclaw: OpenClaw) -> Reading:
        pid = await self._alive()
        if pid is None:
            return unknown("the gateway is not running")
        tree = self._current.resolve()
        health, _ = await self._gateway.health(openclaw)
        found = judge_plugins(health, await asyncio.to_thread(plugin_ids, tree))
        if found.status in (CheckStatus.FAIL, CheckStatus.UNKNOWN):
            return found
        drift = await self._in_step(openclaw, tree, pid)
        return found if drift.status is CheckStatus.PASS else drift

    async def _in_step(self, openclaw: OpenClaw, tree: Path, pid: Pid) -> Reading:
        """Releases of OpenClaw that do not compare versions say nothing, and then there is nothing to fail."""
        now, what = self._clock.monotonic(), (tree, pid)
        if self._drift is None or self._drift[0] != what or self._drift[1] <= now:
            words = ("gateway", "status", "--deep", "--json")
            _, status = await openclaw.run_json(*words, timeout_s=self.timeout_s)
            seal = await asyncio.to_thread(read_seal, tree)
            reading = judge_drifts(status, set(seal.plugins) if seal is not None else set())
            self._drift = what, now + self._drift_every_s, reading
        return self._drift[2]


def judge_plugins(health: dict[str, Any], wanted: set[str]) -> Reading:
    """`health` is the gateway's own answer, `wanted` are the ids of the release's plugins: one that is not loaded
    and not in error may have been switched off by somebody, which is a warning."""
    plugins = health.get("plugins")
    plugins = plugins if isinstance(plugins, dict) else {}
    errors, loaded = plugins.get("errors"), plugins.get("loaded")
    if not isinstance(errors, list) or not isinstance(loaded, list):
        return unknown("the gateway does not say which plugins it has loaded")
    raw = canonical_json({"loaded": loaded, "errors": errors})
    missing = sorted(wanted - {str(each) for each in loaded})
    if errors:
        reason = f"plugins in error: {_named(errors)}"
        return Reading(CheckStatus.FAIL, reason, float(len(loaded)), "plugins", raw=raw)
    if missing:
        reason = f"plugins of the release that are not loaded: {_named(missing)}"
        return Reading(CheckStatus.WARN, reason, float(len(loaded)), "plugins", raw=raw)
    return Reading(CheckStatus.PASS, "", float(len(loaded)), "plugins", raw=raw)


def _named(found: list[Any]) -> str:
    """`id (why)` of the first few, for a person."""
    shown = ", ".join(_named_one(each) for each in found[:SHOWN])
    more = len(found) - SHOWN
    return f"{shown}, and {more} more" if more > 0 else shown


def _named_one(about: Any) -> str:
    if not isinstance(about, dict):
        return str(about)[:100]
    name = str(about.get("id", about.get("pluginId", "a plugin")))[:60]
    why = about.get("error", about.get("message", about.get("reason")))
    return f"{name} ({str(why)[:160]})" if why else name


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
