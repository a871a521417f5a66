"""OpenClaw's own updater on a real global installation, fed from the signed lock, and the way back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.openclaw.tree import read_facts
from coordinator.freeze import Request, freeze
from scripts.minifleet.ports import free_port
from shared.npm import Npm, find_tools
from tests.openclaw.conftest import NEW, OLD
from tests.support.installkit import Node

pytestmark = [pytest.mark.openclaw, pytest.mark.slow]
LIMIT_S = 900


async def install_global(npm: Npm, prefix: Path, version: str) -> None:
    """As an operator has done it once."""
    prefix.mkdir()
    words = ("install", "-g", f"--prefix={prefix}", "--ignore-scripts=false", f"openclaw@{version}")
    await npm._must(None, *words, timeout_s=600)


@pytest.mark.timeout(LIMIT_S)
def test_an_update_and_its_undoing(tmp_path: Path) -> None:
    asyncio.run(update_and_undo(tmp_path))


async def update_and_undo(place: Path) -> None:
    tools = replace(find_tools(), cache=Path.home() / ".npm")
    npm = Npm(tools)
    prefix = place / "prefix"
    await install_global(npm, prefix, OLD)
    frozen = await freeze(Request(NEW), npm, 1.0, lambda text: None)
    node = Node(place, tools, free_port(), {"installer": "native", "native": {"prefix": prefix}})
    settings: dict[str, Any] = {
        "gateway": {
            "mode": "local",
            "port": node.port,
            "bind": "loopback",
            "auth": {"mode": "token", "token": "a-token-for-tests-only-0123456789"},
        },
        "agents": {"defaults": {"heartbeat": {"every": "0m"}}},
    }
    state = node.home / ".openclaw"
    (state / "openclaw.json").write_text(json.dumps(settings))
    context = node.context(frozen.manifest, list(frozen.files.values()))
    installer = context.deps.installer
    old = installer.openclaw(context.tree)
    assert await old.version() == OLD
    assert (await old.run("doctor", "--fix", "--non-interactive", timeout_s=300)).code == 0

    await installer.stage(context)
    assert await installer.staged(context) is not None
    await installer.verify(context)
    saved = node.snapshots.snapshot("u1", [state])
    evidence = await installer.switch(context)
    assert evidence["update"]["after"] == NEW
    assert {"staged", "switched", "migrated"} <= {
        each["phase"] for each in evidence["update"]["steps"]
    }
    assert await installer.switched(context) == evidence
    assert read_facts(context.deps.layout.current.resolve()).core == NEW
    assert await installer.drift(context.tree) is None
    assert await installer.openclaw(context.tree).version() == NEW
    runs = [await old.run("doctor", "--fix", "--non-interactive", timeout_s=300) for _ in range(2)]
    assert runs[-1].code == 0, runs[-1].last_line()

    bookmark = node.bookmark().model_copy(update={"folders": saved})
    await installer.can_put_back(context.deps, bookmark)
    node.snapshots.restore(bookmark)
    await installer.put_back(context.deps, bookmark)
    assert await old.version() == OLD
    lint = await old.run("doctor", "--lint", "--json", "--severity-min", "error", timeout_s=120)
    assert lint.code == 0, lint.stdout.decode()[-2000:]
    left = {path.name for path in (prefix / "lib" / "node_modules").iterdir()}
    assert left - {"openclaw", ".package-lock.json"} == set()
