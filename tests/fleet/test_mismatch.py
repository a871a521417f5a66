"""Three green nodes on one release: their hashes are equal, and who was tampered with is told by its peers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agent.openclaw.tree import read_seal, seal_tree
from scripts.minifleet.fleet import BIN, STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace
from shared.command import run_command
from shared.readiness import ReadinessDocument
from shared.rollout import FleetView
from tests.fleet.conftest import NEW, OLD
from tests.fleet.test_fleet import all_green, until

WITNESS = "witness"
CHANGED = "node_modules/openclaw/settings.mjs"


@pytest.fixture
async def fleet() -> AsyncIterator[MiniFleet]:
    """The witness keeps its trees apart from the others', so that it alone can be tampered with."""
    pace = replace(STANDIN, mismatch_after_s=3, red_after_s=30)
    fleet = MiniFleet(Workspace(), pace, standin=True, mdns=False)
    fleet.node(WITNESS).store = fleet.root / "witness-store"
    try:
        await fleet.open()
        await fleet.until_found()
        yield fleet
    finally:
        await fleet.close()


async def move(fleet: MiniFleet, version: str) -> FleetView:
    release = await fleet.freeze(version)
    rollout = await fleet.set_target(release, strategy="immediate", soak_s=0)
    view = await fleet.until_ended(rollout)
    assert view.rollout is not None
    assert view.rollout.state == "succeeded", view.rollout.reason
    return await until(fleet, lambda view: all_green(view, version), "all are green")


async def documents(fleet: MiniFleet) -> list[ReadinessDocument]:
    found = []
    async with aiohttp.ClientSession() as client:
        for node in fleet.nodes:
            url = f"http://127.0.0.1:{node.api_port}/v1/readiness"
            async with client.get(url) as answer:
                found.append(ReadinessDocument.from_bytes(await answer.read()))
    return found


def tamper(home: Path) -> None:
    """Change what is installed and seal it anew: by its own word the node is green."""
    tree = (home / "current").resolve()
    seal = read_seal(tree)
    assert seal is not None
    with (tree / CHANGED).open("a") as file:
        file.write("// nobody will notice\n")
    seal_tree(tree, seal.release, seal.plugins)


def put_back(fleet: MiniFleet) -> None:
    """The file and its seal, as the others have them."""
    good, bad = (fleet.node(name).home / "current" for name in ("canary", WITNESS))
    for name in (CHANGED, "COMPLETE"):
        (bad / name).write_bytes((good / name).read_bytes())


async def offline(*words: str) -> tuple[int | None, str]:
    argv = [str(BIN / "rollcall"), "readiness", *words]
    done = await run_command(argv, env=dict(os.environ), timeout_s=150)
    return done.code, done.stdout.decode()


async def test_hashes_are_equal_and_a_tampered_node_is_told_by_its_peers(
    fleet: MiniFleet, tmp_path: Path
) -> None:
    await move(fleet, OLD)
    view = await move(fleet, NEW)
    assert len({node.ready_probe_sha256 for node in view.nodes}) == 1
    before = {each.ready_probe_sha256 for each in await documents(fleet)}
    os.kill(fleet.supervisor.pid("stable") or 0, signal.SIGKILL)
    await asyncio.sleep(8)
    view = await until(fleet, lambda view: all_green(view, NEW), "green after a restart")
    assert [red for red in view.reds if red.open] == [], "healthy nodes do not differ"
    assert {each.ready_probe_sha256 for each in await documents(fleet)} == before
    await asyncio.to_thread(tamper, fleet.node(WITNESS).home)
    view = await until(fleet, lambda view: any(red.open for red in view.reds), "a red")
    [red] = [red for red in view.reds if red.open]
    assert red.origin == WITNESS
    assert "differs from" in red.reason
    assert "tree: witness has " in red.reason
    await _told_apart_offline(fleet, tmp_path)
    await asyncio.to_thread(put_back, fleet)
    await until(fleet, lambda view: not any(red.open for red in view.reds), "it ends by itself")


async def _told_apart_offline(fleet: MiniFleet, folder: Path) -> None:
    files = {}
    for node in fleet.nodes:
        files[node.name] = folder / f"{node.name}.json"
        shown = await fleet.rollcall_agent(node, "readiness", "--verbose", "--json")
        files[node.name].write_bytes(shown)
        assert await offline("verify", str(files[node.name])) == (0, "")
    assert await offline("diff", str(files["canary"]), str(files["stable"])) == (0, "")
    code, said = await offline("diff", str(files["canary"]), str(files[WITNESS]))
    assert code == 1
    assert said.startswith("tree: canary has ")
    value = json.loads(files["canary"].read_bytes())
    value["comparable"]["core_running"] = OLD
    files["canary"].write_text(json.dumps(value))
    code, said = await offline("verify", str(files["canary"]))
    assert code == 1
    assert "ready_probe_sha256 says" in said
    assert {document.status for document in await documents(fleet)} == {"green"}
