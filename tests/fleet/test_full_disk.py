"""Fault 36: the agent's disk is full at one phase or another. The old release serves, and what failed is on record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from scripts.minifleet.killing import NEW, OLD, Rig
from scripts.minifleet.workspace import Workspace
from shared.report import NodeReport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
SIZE = "24m"


def run(*words: str | Path) -> None:
    subprocess.run(words, check=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Its agent's home is a file system of its own."""
    rig = Rig(Workspace(), real=False)
    home = rig.node.home
    home.mkdir(parents=True, mode=0o700)
    await asyncio.to_thread(run, "/bin/mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", home)
    try:
        await rig.open()
        yield rig
    finally:
        await rig.fleet.supervisor.stop_all()
        await asyncio.to_thread(run, "/bin/umount", "--lazy", home)
        await rig.close()


@contextlib.contextmanager
def full(home: Path) -> Iterator[None]:
    ballast = home / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    try:
        yield
    finally:
        ballast.unlink()


async def report(rig: Rig) -> NodeReport:
    return await rig.fleet.status(rig.node)


async def until_phase(rig: Rig, rollout: str, *phases: str) -> None:
    while True:
        upgrade = (await report(rig)).upgrade
        if upgrade is not None and upgrade.order.startswith(rollout) and upgrade.phase in phases:
            return
        await asyncio.sleep(0.1)


async def test_a_full_disk_costs_an_upgrade_and_never_the_gateway(rig: Rig) -> None:
    fleet = rig.fleet
    with full(rig.node.home):
        early = await fleet.set_target(rig.new, strategy="immediate", soak_s=0)
        while "No space left" not in (now := await report(rig)).waiting:
            assert now.version_running == OLD
            await asyncio.sleep(0.1)
    await until_phase(rig, early, "done", "dropped")
    if (await report(rig)).version_running == NEW:
        assert await rig.back([]) == "rolled_back"
    await rig.reset()
    late = await fleet.set_target(rig.new, strategy="immediate", soak_s=6)
    await until_phase(rig, late, "soaking")
    with full(rig.node.home):
        await until_phase(rig, late, "done", "rolled_back", "soaking", "stuck")
        now = await report(rig)
        assert now.version_running == now.version_on_disk
    await fleet.until_ended(late)
    now = await report(rig)
    assert now.upgrade is not None
    assert now.upgrade.outcome in ("done", "rolled_back")
    assert now.version_running == (NEW if now.upgrade.outcome == "done" else OLD)
    assert now.readiness.status == "green"
