"""A first-party plugin by the release, on the real OpenClaw: loaded, trusted, in step with the core."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.gateway import Gate, Gateway
from agent.openclaw.plugins import plugins_of
from agent.openclaw.tarballs import fetch_tarballs
from agent.openclaw.tree import LOCK, check_packages
from coordinator.freeze import Frozen, Request, freeze
from scripts.minifleet.ports import free_port
from shared.errors import CommandError
from shared.lock import parse_lock
from shared.npm import Npm, find_tools
from shared.release import parse_release
from tests.openclaw.conftest import NEW, OLD

pytestmark = [pytest.mark.openclaw, pytest.mark.slow]
LIMIT_S = 900
DISCORD = "@openclaw/discord"


async def stage(npm: Npm, tree: Path, version: str) -> Frozen:
    """As a release is staged: from its lock, with the tarballs of its plugins."""
    frozen = await freeze(Request(version, plugins={DISCORD: version}), npm, 1.0, lambda text: None)
    raw = frozen.files[frozen.manifest.lock_sha256]
    tree.mkdir()
    for name in (LOCK, "package-lock.json"):
        (tree / name).write_bytes(raw)
    (tree / "package.json").write_text(json.dumps(frozen.manifest.package_json()))
    lock = parse_lock(raw)
    await npm.install_locked(tree)
    await npm.run_scripts(tree, ["openclaw"])
    check_packages(tree, lock)
    assert await npm.list_problems(tree) is None
    await fetch_tarballs(npm, lock, [DISCORD], tree)
    return frozen


@pytest.mark.timeout(LIMIT_S)
def test_the_plugin_of_a_release_is_loaded_after_core_has_moved(tmp_path: Path) -> None:
    asyncio.run(move(tmp_path))


async def move(place: Path) -> None:
    tools = replace(find_tools(), cache=Path.home() / ".npm")
    npm, home, port = Npm(tools), place / "home", free_port()
    (home / ".openclaw").mkdir(parents=True)
    token = {"mode": "token", "token": "a-token-for-tests-only-0123456789"}
    gateway = {"mode": "local", "port": port, "bind": "loopback", "auth": token}
    (home / ".openclaw" / "openclaw.json").write_text(json.dumps({"gateway": gateway}))
    for version in (OLD, NEW):
        tree = place / version
        release = parse_release((await stage(npm, tree, version)).manifest.canonical())
        openclaw = OpenClaw(tools, tree, home)
        async with plugins_of(release, tree, openclaw) as plugins:
            if version == NEW:
                words = ("doctor", "--fix", "--non-interactive")
                runs = [await plugins.openclaw.run(*words, timeout_s=300) for _ in range(2)]
                assert runs[-1].code == 0, runs[-1].last_line()
            done = await plugins.install(timeout_s=300)
        assert sorted([*done["installed"], *done["kept"]]) == ["discord"]
    with (place / "gateway.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *openclaw.argv("gateway", "--port", str(port)),
            env=openclaw.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        await check_running(openclaw, port, release.manifest.openclaw)
    finally:
        os.killpg(process.pid, 9)
        await process.wait()


async def check_running(openclaw: OpenClaw, port: int, version: str) -> None:
    async with aiohttp.ClientSession() as client, asyncio.timeout(300):
        gateway = Gateway(client, port)
        while (await gateway.readyz()).gate is not Gate.READY:
            await asyncio.sleep(0.5)
        health, _ = await gateway.health(openclaw)
        assert "discord" in health["plugins"]["loaded"]
        assert health["plugins"]["errors"] == []
        _, status = await openclaw.run_json("gateway", "status", "--deep", "--json", timeout_s=60)
        assert status["pluginVersionDrift"] == {"gatewayVersion": version, "drifts": []}


@pytest.mark.timeout(LIMIT_S)
def test_a_plugin_for_another_core_is_refused_when_the_release_is_frozen() -> None:
    npm = Npm(replace(find_tools(), cache=Path.home() / ".npm"))
    with pytest.raises(CommandError, match=r"openclaw@.*2026\.9\.6"):
        asyncio.run(freeze(Request(OLD, plugins={DISCORD: NEW}), npm, 1.0, lambda text: None))
