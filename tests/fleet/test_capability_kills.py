"""An agent that is killed at every named place of a capability's way in, of its way back, and of its way out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.packages import SUPPORT
from scripts.minifleet.supervisor import Supervisor
from scripts.minifleet.workspace import Workspace
from shared.errors import CommandError
from shared.failpoint import ARMED, REACHED, VARIABLE
from shared.roster import Role
from tests.fleet.conftest import OLD
from tests.fleet.test_capabilities import GREETER, SKILL, plugin_version, sign, state
from tests.fleet.test_fleet import until

IN = (
    "order.claimed",
    "capability.staged",
    "capability.begun",
    "capability.stopped",
    "capability.configured",
    "capability.started",
    "capability.wired",
    "capability.smoked",
    "write.installed.json",
    "written.installed.json",
    "order.done",
    "order.told",
)
BACK = ("capability.begun", "capability.undoing", "capability.stopped", "order.done", "order.told")
OUT = (
    "order.claimed",
    "capability.removing",
    "capability.stopped",
    "capability.uninstalled",
    "capability.started",
    "write.installed.json",
    "written.installed.json",
    "order.done",
)
LAID = ("capability.begun", "capability.laying", "capability.laid", "order.done")


class Killed:
    """One node, with an agent that may die as often as it likes."""

    def __init__(self) -> None:
        self.fleet = MiniFleet(
            Workspace(),
            STANDIN,
            standin=True,
            mdns=False,
            roles=(Role.CANARY,),
            supervisor=Supervisor(patience=1_000),
        )
        self.folder = self.fleet.root / "failpoints"
        self.folder.mkdir()
        self.fleet.agent_env[VARIABLE] = str(self.folder)
        self.node = self.fleet.nodes[0]

    async def rollcall(self, places: tuple[str, ...], *words: str) -> dict[str, Any]:
        """A verb for capabilities, while the agent is killed once at each of these places. Returns the run."""
        (self.folder / REACHED).write_text("")
        (self.folder / ARMED).write_text("\n".join(f"{name}#1" for name in places))
        with contextlib.suppress(CommandError):  # a run that fails
            await self.fleet.rollcall("capability", *words, timeout_s=280)
        left = (self.folder / ARMED).read_text().split()
        assert not left, "it was killed at every one of them"
        shown = await self.fleet.rollcall("capability", "show", words[1].partition("@")[0])
        return dict(shown["runs"][0])

    async def orders(self) -> list[tuple[str, str]]:
        listed = (await self.fleet.rollcall("order", "list"))["orders"]
        mine = [order for order in reversed(listed) if order["kind"] != "upgrade"]
        return [(order["kind"], order["state"]) for order in mine]

    def kept(self) -> list[str]:
        """Labels of what the agent counts as installed."""
        path = self.node.home / "capabilities" / "installed.json"
        return [each["label"] for each in json.loads(path.read_text())["kept"]]


@pytest.fixture
async def killed() -> AsyncIterator[Killed]:
    made = Killed()
    try:
        await made.fleet.open()
        await made.fleet.install(OLD)
        yield made
    finally:
        await made.fleet.close()


@pytest.mark.timeout(600)
async def test_an_agent_that_dies_at_every_step_goes_on_or_goes_back(killed: Killed) -> None:
    fleet, node = killed.fleet, killed.node
    settings = fleet.root / "greeter.json"
    settings.write_text(json.dumps({"config": {"words": "good morning"}}))
    words = ("--owner", "canary", "--plugin-config", str(settings))
    await sign(fleet, SUPPORT / "plugins" / "greeter", *words)
    run = await killed.rollcall(IN, "publish", GREETER)
    assert run["state"] == "succeeded", run["reason"]
    assert (plugin_version(node), killed.kept()) == ("1.0.0", [f"{GREETER}@1.0.0"])

    await sign(fleet, SUPPORT / "plugins" / "mute", "--owner", "canary")
    run = await killed.rollcall(BACK, "publish", f"{GREETER}@2.0.0")
    assert run["state"] == "failed"
    assert "nothing to say" in run["reason"]
    assert "rolled back" in run["reason"]
    gates = {gate["gate"]: gate["state"] for gate in run["gates"]}
    assert (gates["G4"], gates["G5"], gates["G6"]) == ("passed", "passed", "failed")
    assert (plugin_version(node), killed.kept()) == ("1.0.0", [f"{GREETER}@1.0.0"])

    run = await killed.rollcall(OUT, "unpublish", GREETER)
    assert run["state"] == "succeeded", run["reason"]
    assert (plugin_version(node), killed.kept()) == (None, [])

    await publish_a_skill(killed)
    assert await killed.orders() == [
        ("install_capability", "completed"),
        ("install_capability", "failed"),
        ("remove_capability", "completed"),
        ("install_capability", "completed"),
    ]
    view = await until(
        fleet, lambda view: all(each.status == "green" for each in view.nodes), "it serves"
    )
    assert view.reds == []


async def publish_a_skill(killed: Killed) -> None:
    source: Path = killed.fleet.root / "hello"
    source.mkdir()
    (source / "SKILL.md").write_text(SKILL)
    await sign(killed.fleet, source, "--owner", "canary", "--as-version", "1.0.0")
    run = await killed.rollcall(LAID, "publish", "hello-fleet")
    assert run["state"] == "succeeded", run["reason"]
    assert (state(killed.node) / "skills" / "hello-fleet" / "SKILL.md").read_text() == SKILL
