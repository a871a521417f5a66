"""A bad release on real agents: people are told by the real Alertmanager, and the evidence of it holds offline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from scripts.debian import need
from scripts.minifleet.breakage import How, break_release
from scripts.minifleet.fleet import MiniFleet
from shared.durable import write_durable
from shared.metadata import fingerprint, read_root
from shared.roster import Role
from tests.fleet.conftest import NEW, Ready
from tests.support.alertkit import Alertmanager, real_alertmanager

PATIENCE_S = 150.0


async def with_channel(fleet: MiniFleet, url: str) -> None:
    text = f'[[channel]]\nname = "am"\ntype = "alertmanager"\nurl = "{url}"\nresend = "2s"\n'
    path = fleet.root / "coordinator" / "alerts.toml"
    await asyncio.to_thread(write_durable, path, text.encode())
    await fleet.supervisor.stop("coordinator")
    fleet.start_coordinator()
    await fleet.watch()


async def until(
    manager: Alertmanager, holds: Callable[[dict[str, dict[str, Any]]], bool]
) -> dict[str, dict[str, Any]]:
    """Alertmanager's alerts by rule, once they are so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = {each["labels"]["alertname"]: each for each in await manager.alerts()}
            if holds(found):
                return found
            await asyncio.sleep(0.2)


async def checks(fleet: MiniFleet, rollout: str) -> dict[str, str]:
    """Of the evidence of a rollout, exported and verified by the command line. Raises CommandError where one fails."""
    path = fleet.root / f"{rollout}.tar.gz"
    await fleet.rollcall("evidence", "export", rollout, "-o", str(path))
    first = fleet.root / "coordinator" / "tuf" / "1.root.json"
    root = fingerprint(read_root(await asyncio.to_thread(first.read_bytes)))
    found = await fleet.rollcall("evidence", "verify", str(path), "--root", root)
    assert found["ok"]
    return {each["name"]: each["words"] for each in found["checks"]}


async def test_a_bad_release_is_told_and_its_evidence_holds(ready: Ready) -> None:
    await asyncio.to_thread(need, "prometheus-alertmanager", "prometheus-alertmanager")
    fleet = ready.fleet
    async with real_alertmanager(fleet.root) as manager:
        await with_channel(fleet, manager.url)
        installed = (await fleet.watch()).rollout
        assert installed is not None
        good = await checks(fleet, installed.id)
        assert good["attestations of canary"].startswith("seen green by stable, witness")
        assert len([name for name in good if name.startswith("attestations of")]) == 3
        breakage = await break_release(fleet.npm, Role.CANARY, How.READY, fleet.packages)
        bad = await fleet.freeze(NEW, breakage=breakage)
        rollout = await fleet.set_target(bad, strategy="canary", soak_s=1)
        await fleet.until_ended(rollout)
        told = await until(manager, lambda found: {"red-open", "upgrade-failed"} <= found.keys())
        assert told["red-open"]["labels"]["subject"] == "canary"
        assert told["red-open"]["labels"]["severity"] == "critical"
        halted = await checks(fleet, rollout)
        assert "still open, held by stable, witness" in halted["reds"]
        assert "attestations of canary" not in halted
        (red,) = (await fleet.rollcall("red", "list"))["reds"]
        await fleet.rollcall_agent(fleet.node("canary"), "clear", red["key"], "--reason", "seen")
        await until(manager, lambda found: "red-open" not in found)
        (over,) = [
            each
            for each in (await fleet.rollcall("alert", "history"))["alerts"]
            if each["rule"] == "red-open"
        ]
        assert over["subject"] == "canary"
