"""Forward over a change of schema and back again, on the real OpenClaw: OPENCLAW.md's own test, by a fleet of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.tree import hash_tree
from scripts.minifleet.fleet import REAL, MiniFleet
from scripts.minifleet.modelstub import ANSWER, ModelStub, provider
from scripts.minifleet.workspace import Workspace
from shared.report import NodeReport
from shared.roster import Role

pytestmark = [pytest.mark.openclaw, pytest.mark.slow, pytest.mark.timeout(900)]

OLD, NEW = "2026.7.35", "2026.9.6"
PLUGIN = "@openclaw/discord"
CALL_S = 180.0


@dataclass
class Mac:
    """One node with a session, whose releases bring a plugin."""

    fleet: MiniFleet
    stub: ModelStub
    session: str

    def openclaw(self) -> OpenClaw:
        node = self.fleet.nodes[0]
        return OpenClaw(self.fleet.tools, node.home / "current", node.gateway_home)

    @property
    def state(self) -> Path:
        return self.fleet.nodes[0].gateway_home / ".openclaw"

    async def call(self, *words: str) -> dict[str, Any]:
        output, value = await self.openclaw().run_json(*words, timeout_s=CALL_S)
        assert output.code == 0, output.last_line()
        return value

    async def turn(self, text: str) -> str:
        """One agent turn; the id of its session."""
        value = await self.call("agent", "--agent", "main", "--message", text, "--json")
        result = value.get("result", value)
        assert result["payloads"][0]["text"] == ANSWER
        return str(result["meta"]["agentMeta"]["sessionId"])

    async def plugin(self) -> dict[str, Any] | None:
        listed = await self.call("plugins", "list", "--json")
        found = [each for each in listed["plugins"] if each.get("id") == "discord"]
        return found[0] if found else None

    async def report(self) -> NodeReport:
        return NodeReport.from_value(await self.fleet.agent(self.fleet.nodes[0], "status"))

    async def move(self, release: str) -> NodeReport:
        rollout = await self.fleet.set_target(release, strategy="immediate", soak_s=0)
        await self.fleet.until_ended(rollout)
        return await self.report()


@pytest.fixture
async def stub() -> AsyncIterator[ModelStub]:
    async with ModelStub() as stub:
        yield stub


@pytest.fixture
def extra() -> str:
    """More of the `[upgrade]` section of agent.toml."""
    return ""


@pytest.fixture
async def mac(stub: ModelStub, extra: str) -> AsyncIterator[Mac]:
    fleet = MiniFleet(Workspace(), REAL, standin=False, mdns=False, roles=(Role.CANARY,))
    node = fleet.nodes[0]
    node.extra = extra
    node.gateway_config = provider(stub.port)
    try:
        await fleet.open()
        old = await fleet.freeze(OLD, plugins={PLUGIN: OLD})
        await fleet.until_found()
        mac = Mac(fleet, stub, "")
        now = await mac.move(old)
        assert now.version_running == OLD, now.upgrade and now.upgrade.reason
        mac.session = await mac.turn("the first turn")
        yield mac
    finally:
        await fleet.close()


async def assert_back(mac: Mac, now: NodeReport) -> None:
    """The old gateway serves the same session, with its plugin."""
    assert (now.version_running, now.version_on_disk) == (OLD, OLD)
    assert await mac.turn("after the way back") == mac.session
    sent = json.dumps(mac.stub.requests[-1])
    assert "the first turn" in sent, "the session remembers"
    plugin = await mac.plugin()
    assert plugin is not None
    assert (plugin["version"], plugin.get("status")) == (OLD, "loaded")


async def test_there_and_back_with_session_and_plugin(mac: Mac) -> None:
    before = await mac.plugin()
    assert before is not None
    new = await mac.fleet.freeze(NEW, plugins={PLUGIN: NEW})
    there = await mac.move(new)
    assert there.upgrade is not None
    assert there.upgrade.outcome == "done", there.upgrade.reason
    assert there.version_running == NEW
    assert there.upgrade.way_back is not None
    assert there.upgrade.way_back.restores_state
    assert await mac.turn("on the new release") == mac.session
    plugin = await mac.plugin()
    assert plugin is not None
    assert (plugin["version"], plugin.get("status")) == (NEW, "loaded")
    back = await mac.fleet.agent(mac.fleet.nodes[0], "rollback", "--reason", "a trial")
    now = NodeReport.from_value(back)
    assert now.upgrade is not None
    assert now.upgrade.outcome == "rolled_back", now.upgrade.reason
    assert now.upgrade.lost is not None
    assert now.upgrade.lost.turns == 1, "the turn on the new release is counted"
    await assert_back(mac, now)
    assert "on the new release" not in json.dumps(mac.stub.requests[-1])


@pytest.mark.parametrize("extra", ['rehearsal = "off"\n'])
async def test_a_migration_that_dies_half_way_ends_on_the_old_release(mac: Mac) -> None:
    """Killed in the outage, both times that it is run, once it has begun to write."""
    new = await mac.fleet.freeze(NEW, plugins={PLUGIN: NEW})
    before = await asyncio.to_thread(hash_tree, mac.state / "agents")
    killing = asyncio.create_task(_kill_each(_is_fix(mac.fleet.root), mac.state))
    try:
        now = await mac.move(new)
    finally:
        killing.cancel()
    assert now.upgrade is not None
    assert now.upgrade.outcome == "rolled_back"
    assert "doctor --fix failed" in now.upgrade.reason
    assert await asyncio.to_thread(hash_tree, mac.state / "agents") == before
    await assert_back(mac, now)


def _is_fix(root: Path) -> Callable[[psutil.Process], bool]:
    def fits(process: psutil.Process) -> bool:
        mark = process.environ().get("ROLLCALL_CHILD_OF", "")
        return mark.startswith(str(root)) and "--fix" in process.cmdline()

    return fits


async def _kill_each(fits: Callable[[psutil.Process], bool], state: Path) -> None:
    """SIGKILL for each such process as soon as the state is another than when it began."""
    began: dict[int, tuple[str, int, int]] = {}
    while True:
        for process in await asyncio.to_thread(_find, fits):
            now = await asyncio.to_thread(hash_tree, state)
            first = began.setdefault(process.pid, now)
            if now != first:
                process.kill()
        await asyncio.sleep(0.05)


def _find(fits: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if fits(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
