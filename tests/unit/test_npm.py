"""npm as the agent runs it: whose configuration it obeys, and whose scripts it runs. The real npm."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.layout import Layout
from shared.account import Account
from shared.command import Output, run_command
from shared.errors import CommandError, ConfigError, UntrustedError
from shared.npm import NodeTools, Npm, find_tools
from shared.scratch import USER_RC, make_scratch, read_npmrc, sweep_scratch
from tests.support.cage import caged_tools, home_of, needs_root, open_place

ELSEWHERE = "registry=https://elsewhere.example/\nignore-scripts=false\n"


async def config_get(tools: NodeTools, home: Path, cwd: Path, key: str) -> str:
    done = await run_command(
        [str(tools.node), str(tools.npm_cli), "config", "get", key],
        env=tools.environment(home),
        timeout_s=60,
        cwd=cwd,
        account=tools.account,
    )
    assert done.code == 0, done.last_line()
    return done.stdout.decode().strip()


@pytest.fixture
def place() -> Iterator[Path]:
    with open_place() as root:
        yield root


@needs_root
def test_no_users_and_no_global_npmrc_is_obeyed(place: Path) -> None:
    """As the gateway's account, with its own home: the way OpenClaw's commands and gateway run."""
    nobody, layout = Account.find("nobody"), Layout(place / "agent")
    layout.make()
    layout.share()
    home, tools = home_of(nobody, place), caged_tools(layout, nobody)
    (home / ".npmrc").write_text(ELSEWHERE)
    (home / ".npmrc").chmod(0o644)
    folder = layout.releases
    assert "elsewhere" not in asyncio.run(config_get(tools, home, folder, "registry"))
    assert asyncio.run(config_get(tools, home, folder, "ignore-scripts")) == "true"
    rc = asyncio.run(config_get(tools, home, folder, "globalconfig"))
    assert Path(rc).parent == layout.empty
    assert list(layout.empty.iterdir()) == []


async def test_a_project_with_a_npmrc_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / ".npmrc").write_text(ELSEWHERE)
    with pytest.raises(UntrustedError, match="npm would obey"):
        await Npm(find_tools()).list_installed(tmp_path)


@pytest.mark.parametrize("caged", [False, pytest.param(True, marks=needs_root)])
def test_the_npmrc_that_an_operator_names_is_the_one(place: Path, caged: bool) -> None:
    nobody = Account.find("nobody") if caged else None
    named = place / "npmrc"
    named.write_text(ELSEWHERE)
    named.chmod(0o600)
    tools = replace(find_tools(), account=nobody, npmrc=named)
    home = make_scratch(place, nobody, named)
    assert asyncio.run(config_get(tools, home, home, "registry")) == "https://elsewhere.example/"
    assert asyncio.run(config_get(tools, home, home, "ignore-scripts")) == "true"
    owner = os.geteuid() if nobody is None else nobody.uid
    for path in (home, home / "package.json", home / USER_RC):
        assert path.stat().st_uid == owner
        assert path.stat().st_mode & 0o077 == 0


def test_a_home_that_a_killed_agent_left_is_swept_away(tmp_path: Path) -> None:
    left = make_scratch(tmp_path, None, None)
    (tmp_path / "other").mkdir()
    sweep_scratch(tmp_path)
    assert not left.exists()
    assert (tmp_path / "other").is_dir()


@pytest.mark.parametrize("plant", ["link", "mode", "folder", "missing", "large", "fifo"])
def test_a_npmrc_that_others_could_have_written_is_refused(tmp_path: Path, plant: str) -> None:
    path = tmp_path / "npmrc"
    if plant == "link":
        path.symlink_to("/etc/hostname")
    elif plant == "folder":
        path.mkdir()
    elif plant == "fifo":
        os.mkfifo(path)
    elif plant != "missing":
        path.write_bytes(bytes(1 << 17 if plant == "large" else 1))
        path.chmod(0o662 if plant == "mode" else 0o600)
    with pytest.raises(ConfigError, match=r"openclaw\.npmrc"):
        read_npmrc(path)


async def test_only_listed_install_scripts_run(tmp_path: Path) -> None:
    """Of two packages that would both leave a mark, and of the project itself, one is listed."""
    npm, project = Npm(find_tools()), tmp_path / "project"
    dependencies = {}
    for name in ("listed", "other"):
        source = tmp_path / name
        source.mkdir()
        script = "node -e \"require('fs').writeFileSync('ran', '')\""
        package = {"name": name, "version": "1.0.0", "scripts": {"postinstall": script}}
        (source / "package.json").write_text(json.dumps(package))
        dependencies[name] = f"file:{await npm.pack(source, tmp_path)}"
    project.mkdir()
    whole = {"dependencies": dependencies, "scripts": {"postinstall": "touch ran"}}
    (project / "package.json").write_text(json.dumps({"name": "p", "private": True, **whole}))
    await npm.lock(project)
    await npm.install_locked(project)
    assert list(project.rglob("ran")) == []
    await npm.run_scripts(project, ["listed"])
    assert list(project.rglob("ran")) == [project / "node_modules" / "listed" / "ran"]


class Restless(Npm):
    """An npm whose lock differs each time, or not any more after `still` runs."""

    def __init__(self, still: int) -> None:
        super().__init__(find_tools())
        self.still, self.runs = still, 0

    async def _must(self, project: Path | None, *words: str, timeout_s: float) -> Output:
        assert project is not None
        self.runs += 1
        body = str(min(self.runs, self.still)).encode()
        await asyncio.to_thread((project / "package-lock.json").write_bytes, body)
        return Output(words, 0, b"", b"", 0.0)


async def test_a_lock_is_resolved_until_it_stands_still(tmp_path: Path) -> None:
    """For plugins that bundle their dependencies the first lock is one that `npm ci` refuses."""
    npm = Restless(still=2)
    await npm.lock(tmp_path)
    assert npm.runs == 3
    with pytest.raises(CommandError, match="differently each time"):
        await Restless(still=99).lock(tmp_path)


ERESOLVE = b"""\
npm error code ERESOLVE
npm error ERESOLVE could not resolve
npm error
npm error While resolving: @openclaw/discord@2026.9.6
npm error Found: openclaw@2026.7.35
npm error Conflicting peer dependency: openclaw@2026.9.6
npm error node_modules/openclaw
npm error   peerOptional openclaw@">=2026.9.6" from @openclaw/discord@2026.9.6
npm error For a full report see:
npm error /home/x/.npm/_logs/eresolve-report.txt
npm error A complete log of this run can be found in: /home/x/.npm/_logs/debug-0.log
"""
"""As npm 11.17 said it of a plugin for another core, shortened."""


class Conflicting(Npm):
    async def _run(self, project: Path | None, *words: str, timeout_s: float) -> Output:
        return Output(words, 1, b"", ERESOLVE, 0.0)


async def test_a_peer_conflict_is_told_by_the_packages_that_conflict(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        await Conflicting(find_tools()).lock(tmp_path)
    said = str(caught.value)
    assert "Conflicting peer dependency: openclaw@2026.9.6" in said
    assert 'openclaw@">=2026.9.6" from @openclaw/discord@2026.9.6' in said
    assert "report" not in said
