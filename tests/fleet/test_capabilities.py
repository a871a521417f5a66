"""Capabilities on real agents: published gate by gate, taken back when the smoke test fails, unpublished."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.minifleet.fleet import MiniFleet, Node
from scripts.minifleet.packages import SUPPORT
from shared.errors import CommandError
from tests.fleet.conftest import Ready

pytestmark = pytest.mark.asyncio(loop_scope="module")
GREETER = "demo-greeter"
SKILL = "---\nname: hello-fleet\ndescription: Says hello to the fleet.\n---\n\nSay hello.\n"


def state(node: Node) -> Path:
    return node.gateway_home / ".openclaw"


def plugin_version(node: Node) -> str | None:
    """What the stand-in has on record."""
    path = state(node) / "state" / "plugins.json"
    records = json.loads(path.read_text()) if path.exists() else {}
    return None if GREETER not in records else str(records[GREETER]["version"])


async def sign(fleet: MiniFleet, source: Path, *words: str) -> dict[str, Any]:
    tools = ["--node", str(fleet.tools.node), "--npm", str(fleet.tools.npm_cli)]
    return await fleet.rollcall(
        "capability", "create", str(source), "--publish", *fleet.desk(), *tools, *words
    )


def states(run: dict[str, Any], pipeline: str) -> dict[str, str]:
    return {gate["gate"]: gate["state"] for gate in run[pipeline]}


async def test_a_plugin_is_published_a_bad_one_is_taken_back_and_it_is_unpublished(
    shared: Ready,
) -> None:
    fleet = shared.fleet
    settings = fleet.root / "greeter.json"
    settings.write_text(json.dumps({"config": {"words": "good morning"}}))
    words = ("--owner", "canary", "--plugin-config", str(settings))
    made = await sign(fleet, SUPPORT / "plugins" / "greeter", *words)
    assert (made["kind"], made["version"]) == ("plugin", "1.0.0")

    run = await fleet.rollcall("capability", "publish", GREETER, "--reason", "greet")
    assert set(states(run, "publishPipeline").values()) == {"passed"}, run
    assert run["state"] == "succeeded"
    for node in fleet.nodes:
        assert plugin_version(node) == "1.0.0"
        entry = json.loads((state(node) / "openclaw.json").read_text())["plugins"]["entries"]
        assert entry[GREETER] == {"enabled": True, "config": {"words": "good morning"}}
    orders = (await fleet.rollcall("order", "list", "--kind", "install_capability"))["orders"]
    assert sorted(order["node"] for order in orders) == ["canary", "stable", "witness"]

    await sign(fleet, SUPPORT / "plugins" / "mute", "--owner", "canary")
    with pytest.raises(CommandError, match="nothing to say"):
        await fleet.rollcall("capability", "publish", f"{GREETER}@2.0.0")
    shown = await fleet.rollcall("capability", "show", GREETER)
    last = shown["runs"][0]
    assert last["state"] == "failed"
    assert "rolled back" in last["reason"]
    assert [gate["state"] for gate in last["gates"]][4:8] == [
        "passed",
        "passed",
        "failed",
        "waiting",
    ]
    assert [plugin_version(node) for node in fleet.nodes] == ["1.0.0"] * 3
    used = {each["version"]: each["state"] for each in shown["versions"]}
    assert used == {"1.0.0": "active", "2.0.0": "signed"}

    run = await fleet.rollcall("capability", "unpublish", GREETER)
    assert set(states(run, "unpublishPipeline").values()) == {"passed"}, run
    assert [plugin_version(node) for node in fleet.nodes] == [None] * 3
    for node in fleet.nodes:
        entries = json.loads((state(node) / "openclaw.json").read_text())["plugins"]["entries"]
        assert GREETER not in entries
    found = (await fleet.rollcall("capability", "list"))["capabilities"]
    assert [each["state"] for each in found] == ["archived", "signed"]
    view = await fleet.watch()
    assert all(node.status == "green" for node in view.nodes), view


async def test_a_skill_goes_on_without_an_outage_and_spares_what_is_there(shared: Ready) -> None:
    fleet = shared.fleet
    source = fleet.root / "hello"
    source.mkdir()
    (source / "SKILL.md").write_text(SKILL)
    await sign(fleet, source, "--owner", "canary", "--as-version", "1.0.0")
    own = state(fleet.node("witness")) / "skills" / "hello-fleet"
    own.mkdir(parents=True)
    (own / "SKILL.md").write_text("an operator's own")

    with pytest.raises(CommandError, match="which Rollcall did not install"):
        await fleet.rollcall("capability", "publish", "hello-fleet")
    assert (own / "SKILL.md").read_text() == "an operator's own"
    for name in ("canary", "stable"):
        assert not (state(fleet.node(name)) / "skills" / "hello-fleet").exists()

    (own / "SKILL.md").unlink()
    await asyncio.to_thread(own.rmdir)
    run = await fleet.rollcall("capability", "publish", "hello-fleet")
    assert run["state"] == "succeeded"
    for node in fleet.nodes:
        assert (state(node) / "skills" / "hello-fleet" / "SKILL.md").read_text() == SKILL
