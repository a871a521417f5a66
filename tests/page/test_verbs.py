"""Every verb of a rollout pressed in a real browser, on a coordinator whose nodes are played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.report import UpgradeReport
from tests.support.coordinatorkit import Running, run_coordinator
from tests.support.pageflows import say
from tests.support.pagekit import Visitor, chromium, page_scripts
from tests.support.rolloutkit import Player, players, reaches, upgrade


def of(rollout: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict(node) for node in rollout["nodes"] if node["name"] == name)


async def gets_order(running: Running, node: Player) -> dict[str, Any]:
    """Once it is the node's turn."""
    return of(
        await reaches(running, lambda each: of(each, node.name)["state"] == "pending"), node.name
    )


async def drops(running: Running, node: Player, release: str) -> None:
    """Its order, before the outage: the rollout halts."""
    order = (await gets_order(running, node))["order"]
    report = upgrade(order, release, "dropped", "dropped")
    await node.says(upgrade=report.model_copy(update={"reason": "no room"}))
    await reaches(running, lambda each: each["state"] == "halted")


async def watched(running: Running, node: Player, release: str) -> UpgradeReport:
    """Up to its soak."""
    order = (await gets_order(running, node))["order"]
    report = upgrade(order, release, "soaking")
    await node.says(upgrade=report, release=release)
    await reaches(running, lambda each: of(each, node.name)["phase"] == "soaking")
    return report


@pytest.mark.timeout(300)
async def test_promote_retry_skip_and_abort_do_what_they_say(tmp_path: Path) -> None:
    await page_scripts()
    async with run_coordinator(tmp_path) as running, chromium() as browser:
        release = await running.publish()
        one, two, three = await players(running, "one", "two", "three")
        for node in (one, two, three):
            await node.says()
        asked = {"release": release, "strategy": "rolling", "soak_s": 3600}
        id_ = (await running.post("/v1/targets", asked))["id"]
        me = await Visitor.come(browser, running.url)
        await me.sign_in(running.settings.paths.token.read_text().strip())

        await drops(running, one, release)
        await me.go(f"/rollouts/{id_}")
        assert "no room" in await me.text()
        assert "one" in await say(me, "Retry", "made room")
        again = await gets_order(running, one)
        assert (again["attempt"], again["order"] != f"{id_}:one") == (2, True)

        await watched(running, one, release)
        await me.go(f"/rollouts/{id_}")
        assert "one" in await say(me, "Promote", "it is fine")
        promoted = (await running.get(f"/v1/rollouts/{id_}"))["waves"]
        assert [wave["promoted"] for wave in promoted] == [True, False, False]

        await me.go(f"/rollouts/{id_}")
        await say(me, "Skip nodes", "in repair", nodes=["two"])
        left = of(await running.get(f"/v1/rollouts/{id_}"), "two")
        assert (left["state"], left["reason"]) == ("skipped", "skipped by first: in repair")
        assert of(await running.get(f"/v1/rollouts/{id_}"), "three")["state"] == "pending"

        told = await say(me, "Abort", "enough")
        assert "one" in told
        assert "drop" in told
        rollout = await running.get(f"/v1/rollouts/{id_}")
        assert rollout["state"] in ("aborting", "aborted")
        assert all("enough" in of(rollout, name)["withdrawn"] for name in ("one", "three"))
        assert me.complaints == []
