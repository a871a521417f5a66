"""git and docker compose: a real git with a bare repository, an emulated docker, real gateway processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.openclaw.gateway import Gate, Gateway
from agent.service.compose import ComposeService
from agent.upgrade.context import Context, StepFailed
from agent.upgrade.installers.compose import ComposeInstaller
from scripts.minifleet.packages import SUPPORT
from scripts.minifleet.ports import free_port
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.errors import CommandError
from shared.http import session
from shared.npm import find_tools
from tests.support.installkit import Node
from tests.unit.test_release import manifest

OLD, NEW = "2026.7.35", "2026.9.6"
LOCK = json.dumps({"lockfileVersion": 3, "packages": {}}).encode()
GATEWAY = "openclaw-gateway"


def git(*words: str, inside: Path) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null"}
    who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["git", *words], cwd=inside, env=who, capture_output=True, check=True, text=True
    )
    return done.stdout.strip()


class Site:
    """A host with a checkout of the stand-in at OLD, and a remote that knows NEW."""

    def __init__(self, place: Path) -> None:
        self.work, self.port = place / "work", free_port()
        bare, self.checkout = place / "openclaw.git", place / "checkout"
        for folder in (self.work, bare):
            folder.mkdir()
        git("init", "--bare", "-q", inside=bare)
        git("init", "-q", inside=self.work)
        git("remote", "add", "origin", str(bare), inside=self.work)
        self.release(OLD)
        git("clone", "-q", "--branch", f"v{OLD}", str(bare), str(self.checkout), inside=place)
        self.release(NEW)
        docker = place / "docker"
        emulator = SUPPORT / "docker_emulator.py"
        docker.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{emulator}" "$@"\n')
        docker.chmod(0o700)
        compose = {"checkout": self.checkout, "docker": docker}
        self.node = Node(
            place, find_tools(), self.port, {"installer": "compose", "compose": compose}
        )
        token = {"mode": "token", "token": "t"}
        settings = {"gateway": {"mode": "local", "port": self.port, "auth": token}}
        (self.node.home / ".openclaw" / "openclaw.json").write_text(json.dumps(settings))

    def release(self, version: str, tag: str | None = None) -> None:
        for path in (SUPPORT / "openclaw-standin").iterdir():
            (self.work / path.name).write_bytes(path.read_bytes())
        about = json.loads((self.work / "package.json").read_text())
        (self.work / "package.json").write_text(json.dumps({**about, "version": version}))
        command = [str(find_tools().node), "openclaw.mjs", "gateway", "--port", str(self.port)]
        service = {"image": "openclaw:local", "command": command}
        (self.work / "docker-compose.yml").write_text(json.dumps({"services": {GATEWAY: service}}))
        git("add", "-A", inside=self.work)
        git("commit", "-q", "--allow-empty", "-m", version, inside=self.work)
        git("tag", "-f", tag or f"v{version}", inside=self.work)
        git("push", "-q", "-f", "origin", tag or f"v{version}", inside=self.work)

    def context(self, version: str, upgrade: str = "u1", **changes: Any) -> Context:
        release = manifest(openclaw=version, lock_sha256=sha256_hex(LOCK), **changes)
        return self.node.context(release, [LOCK], upgrade)

    def head(self) -> str:
        return git("rev-parse", "HEAD", inside=self.checkout)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = await asyncio.to_thread(Site, tmp_path)
    yield made
    await service_of(made, installer_of(await context(made, NEW))).stop(1)


async def context(site: Site, version: str, upgrade: str = "u1", **changes: Any) -> Context:
    return await asyncio.to_thread(lambda: site.context(version, upgrade, **changes))


def installer_of(made: Context) -> ComposeInstaller:
    assert isinstance(made.deps.installer, ComposeInstaller)
    return made.deps.installer


def service_of(site: Site, installer: ComposeInstaller) -> ComposeService:
    return ComposeService(installer.compose, SystemClock(), lambda: None)


async def answers(port: int, made: Context) -> str | None:
    """The running version, once it is ready."""
    async with session() as client, asyncio.timeout(60):
        gateway = Gateway(client, port)
        while (await gateway.readyz()).gate is not Gate.READY:
            await asyncio.sleep(0.1)
        return await gateway.running_version(made.deps.openclaw(made.tree))


async def bring_up(site: Site, made: Context) -> ComposeService:
    """As the phases do it."""
    installer = installer_of(made)
    await installer.stage(made)
    await installer.verify(made)
    service = service_of(site, installer)
    await service.stop(5)
    await installer.switch(made)
    assert await installer.switched(made) is not None
    doctor = await made.deps.openclaw(made.tree).run("doctor", "--fix", timeout_s=30)
    assert doctor.code == 0, doctor.last_line()
    await service.start(made.deps.service_spec())
    return service


async def test_up_and_back_again_to_the_commit_that_was_there(site: Site) -> None:
    first = await context(site, OLD, "u0")
    service = await bring_up(site, first)
    assert await answers(site.port, first) == OLD
    old_pid, old_head = await service.alive(), await asyncio.to_thread(site.head)
    assert old_pid is not None
    assert await service.start(first.deps.service_spec()) == old_pid

    made = await context(site, NEW)
    state = site.node.home / ".openclaw"
    saved = await asyncio.to_thread(site.node.snapshots.snapshot, "u1", [state])
    await bring_up(site, made)
    assert await answers(site.port, made) == NEW
    assert await installer_of(made).drift(made.tree) is None
    assert await installer_of(made).drift(first.tree) is not None

    bookmark = site.node.bookmark("u1", first.tree.name).model_copy(update={"folders": saved})
    await service.stop(5)
    await installer_of(made).can_put_back(made.deps, bookmark)
    await asyncio.to_thread(site.node.snapshots.restore, bookmark)
    for _ in range(2):
        await installer_of(made).put_back(made.deps, bookmark)
    await service.start(made.deps.service_spec())
    assert await answers(site.port, first) == OLD
    assert await asyncio.to_thread(site.head) == old_head
    assert made.deps.layout.current.resolve() == first.tree


async def test_a_checkout_that_was_killed_is_done_again(site: Site) -> None:
    made = await context(site, NEW)
    installer = installer_of(made)
    await installer.stage(made)
    (site.checkout / ".git" / "index.lock").touch()
    (site.checkout / "openclaw.mjs").write_text("half of it")
    await installer.switch(made)
    assert await installer.drift(made.tree) is None
    assert "half" not in (site.checkout / "openclaw.mjs").read_text()


async def test_what_the_tag_meant_when_it_was_staged_is_what_is_checked_out(site: Site) -> None:
    made = await context(site, NEW)
    installer = installer_of(made)
    meant = (await installer.stage(made))["commit"]
    await asyncio.to_thread(site.release, NEW)
    with pytest.raises(CommandError, match="git fetch failed"):
        await installer.stage(made)
    await installer.switch(made)
    assert await asyncio.to_thread(site.head) == meant


async def test_what_is_refused_before_anything_is_stopped(site: Site) -> None:
    missing = await context(site, "2026.9.5")
    with pytest.raises(StepFailed, match=r"no tag v2026\.9\.5"):
        await installer_of(missing).stage(missing)
    plugged = await context(site, NEW, plugins={"@a/b": "1.0.0"})
    with pytest.raises(StepFailed, match="plugins"):
        await installer_of(plugged).stage(plugged)
    await asyncio.to_thread(site.release, OLD, "v2026.9.7")
    lying = await context(site, "2026.9.7")
    await installer_of(lying).stage(lying)
    with pytest.raises(StepFailed, match=r"is OpenClaw 2026\.7\.35, not 2026\.9\.7"):
        await installer_of(lying).verify(lying)
    (site.checkout / "openclaw.mjs").write_text("by hand")
    made = await context(site, NEW)
    await installer_of(made).stage(made)
    with pytest.raises(StepFailed, match="changed by hand"):
        await installer_of(made).verify(made)


async def test_nothing_in_the_checkout_runs(site: Site) -> None:
    """A checkout is not trusted to run programs: hooks are off."""
    hook = site.checkout / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {site.checkout}/ran\n")
    hook.chmod(0o755)
    made = await context(site, NEW)
    await installer_of(made).stage(made)
    await installer_of(made).switch(made)
    assert not (site.checkout / "ran").exists()
