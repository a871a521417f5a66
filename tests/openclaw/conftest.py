"""The real package and the stand-in, installed once each, behind one fixture."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.openclaw.cli import OpenClaw
from scripts.minifleet.packages import pack_standin
from scripts.minifleet.ports import free_port
from shared.npm import NodeTools, Npm, find_tools

OLD, NEW = "2026.7.35", "2026.9.6"


@dataclass
class Packages:
    """Trees by kind and version, made when first asked for."""

    root: Path
    tools: NodeTools
    trees: dict[tuple[str, str], Path] = field(default_factory=dict)

    def tree(self, kind: str, version: str) -> Path:
        if (kind, version) not in self.trees:
            self.trees[kind, version] = asyncio.run(self._install(kind, version))
        return self.trees[kind, version]

    async def _install(self, kind: str, version: str) -> Path:
        npm = Npm(self.tools)
        tree = self.root / f"tree-{kind}-{version}"
        tree.mkdir()
        wanted = version
        if kind == "standin":
            tarball = await pack_standin(npm, version, self.root)
            wanted = f"file:{tarball}"
        package = {"name": "try", "private": True, "dependencies": {"openclaw": wanted}}
        (tree / "package.json").write_text(json.dumps(package))
        await npm.lock(tree)
        await npm.install_locked(tree)
        await npm.run_scripts(tree, ["openclaw"])
        return tree


@dataclass
class Home:
    """One OpenClaw home with a valid configuration on a port of its own."""

    packages: Packages
    kind: str
    version: str
    path: Path
    port: int

    @property
    def state(self) -> Path:
        return self.path / ".openclaw"

    def openclaw(self, version: str | None = None) -> OpenClaw:
        tree = self.packages.tree(self.kind, version or self.version)
        return OpenClaw(self.packages.tools, tree, self.path)

    @property
    def is_new(self) -> bool:
        return self.version == NEW

    def write(self, **changes: Any) -> None:
        config: dict[str, Any] = {
            "gateway": {
                "mode": "local",
                "port": self.port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": "a-token-for-tests-only-0123456789"},
            },
            "agents": {"defaults": {"heartbeat": {"every": "0m"}}},
        }
        (self.state / "openclaw.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture(scope="session")
def packages() -> Iterator[Packages]:
    root = Path(tempfile.mkdtemp(prefix="rollcall-openclaw-"))
    cache = Path(os.environ.get("HOME", "/tmp")) / ".npm"
    yield Packages(root, replace(find_tools(), cache=cache))
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(
    params=[
        pytest.param(("standin", OLD), id=f"standin-{OLD}"),
        pytest.param(("standin", NEW), id=f"standin-{NEW}"),
        pytest.param(("real", OLD), id=f"real-{OLD}", marks=pytest.mark.openclaw),
        pytest.param(("real", NEW), id=f"real-{NEW}", marks=pytest.mark.openclaw),
    ]
)
def home(request: pytest.FixtureRequest, packages: Packages, tmp_path: Path) -> Home:
    kind, version = request.param
    made = Home(packages, kind, version, tmp_path / "home", free_port())
    made.state.mkdir(parents=True)
    made.write()
    made.openclaw()
    return made


async def start_gateway(home: Home) -> asyncio.subprocess.Process:
    """In the foreground of a session of its own: whoever started it ends its group."""
    openclaw = home.openclaw()
    return await asyncio.create_subprocess_exec(
        *openclaw.argv("gateway", "--port", str(home.port)),
        env=openclaw.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
