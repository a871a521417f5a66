"""The running tree: what was touched in it is found, named, and judged by reading every file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from agent.openclaw.changed import broken_seal, touched_entries, touched_folders
from agent.openclaw.tree import LOCK, SEAL, seal_tree
from agent.readiness.probes.tree import TreeProbe
from agent.readiness.reading import Reading
from shared.readiness import CheckStatus
from tests.conftest import ManualClock
from tests.unit.test_release import lock_with

RELEASE = "f" * 64
CORE = "node_modules/openclaw"


def make_tree(tree: Path) -> Path:
    core = tree / CORE
    (core / "dist").mkdir(parents=True)
    (core / "package.json").write_text(json.dumps({"version": "1.0.0"}))
    (core / "dist" / "index.js").write_text("1")
    (tree / LOCK).write_bytes(lock_with(**{CORE: {}}))
    time.sleep(0.02)
    seal_tree(tree, RELEASE, [])
    time.sleep(0.02)
    return tree


def point(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


class Rig:
    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.tree, self.clock = make_tree(folder / RELEASE), clock
        self.current = folder / "current"
        point(self.current, self.tree)
        self.probe = TreeProbe(
            self.current, 60, self.drift, sweep_every_s=900, monotonic=clock.monotonic
        )

    async def drift(self, tree: Path) -> str | None:
        return None

    async def read(self) -> Reading:
        """A period later."""
        self.clock.advance(60)
        return await self.probe.read()


@pytest.fixture
def rig(tmp_path: Path, clock: ManualClock) -> Rig:
    return Rig(tmp_path, clock)


async def test_an_untouched_tree_passes_and_has_its_facts(rig: Rig) -> None:
    for _ in range(3):
        seen = await rig.read()
        assert (seen.status, seen.reason) == (CheckStatus.PASS, "")
        assert seen.facts["release"] == RELEASE
    assert (await asyncio.to_thread(touched_entries, rig.tree))[0].count == 0


@pytest.mark.parametrize("kind", ["written", "replaced", "mode", "added", "removed", "linked"])
async def test_a_change_is_a_failure_that_names_it_one_period_later(rig: Rig, kind: str) -> None:
    await rig.read()
    await rig.read()
    file = rig.tree / CORE / "dist" / "index.js"
    named = f"{CORE}/dist/index.js"
    if kind == "written":
        file.write_text("2")
        os.utime(file, ns=(0, 0))
    elif kind == "replaced":
        (rig.tree / CORE / "dist" / "new").write_text("2")
        (rig.tree / CORE / "dist" / "new").replace(file)
    elif kind == "mode":
        file.chmod(0o755)
    elif kind == "added":
        (rig.tree / "node_modules" / "extra.js").write_text("x")
        named = "node_modules/extra.js"
    elif kind == "removed":
        file.unlink()
        named = f"{CORE}/dist/"
    else:
        file.unlink()
        file.symlink_to("/etc/passwd")
    seen = await rig.read()
    assert seen.status is CheckStatus.FAIL
    assert "is not as it was staged" in seen.reason
    assert named in seen.reason
    assert (await rig.read()).status is CheckStatus.FAIL, "and it stays one"


async def test_what_happened_while_no_agent_ran_counts(rig: Rig) -> None:
    (rig.tree / CORE / "dist" / "index.js").write_text("2")
    assert (await rig.read()).status is CheckStatus.PASS, "nothing is swept in an outage"
    assert (await rig.read()).status is CheckStatus.FAIL


async def test_a_seal_that_was_touched_afterwards_hides_nothing(rig: Rig) -> None:
    await rig.read()
    await rig.read()
    (rig.tree / CORE / "dist" / "index.js").write_text("2")
    time.sleep(0.02)  # noqa: ASYNC251
    (rig.tree / SEAL).touch()
    assert (await rig.read()).status is CheckStatus.FAIL


async def test_a_change_that_is_taken_back_is_over(rig: Rig) -> None:
    file = rig.tree / CORE / "dist" / "index.js"
    for text, wanted in (("1", "pass"), ("2", "fail"), ("1", "pass")):
        await rig.read()
        file.write_text(text)
        assert (await rig.read()).status == wanted


async def test_touched_without_a_change_is_read_once_and_passes(rig: Rig) -> None:
    for path in rig.tree.rglob("*"):
        if path.name != SEAL:
            path.chmod(path.stat().st_mode)
    await rig.read()
    assert (await rig.read()).status is CheckStatus.PASS
    touched, folders = await asyncio.to_thread(touched_entries, rig.tree)
    assert touched.count > 3
    assert touched_folders(rig.tree, folders).count == len(folders)


async def test_a_copied_tree_is_whole_although_all_of_it_is_newer(rig: Rig, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / RELEASE
    shutil.copytree(rig.tree, copy, symlinks=True)
    point(rig.current, copy)
    await rig.read()
    assert (await rig.read()).status is CheckStatus.PASS


async def test_without_a_release_nothing_is_known(rig: Rig, tmp_path: Path) -> None:
    rig.current.unlink()
    assert (await rig.read()).status is CheckStatus.UNKNOWN
    point(rig.current, tmp_path / "nowhere")
    assert (await rig.read()).status is CheckStatus.FAIL


def test_many_changes_are_counted_and_the_latest_files_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / RELEASE)
    for number in range(40):
        (tree / CORE / f"{number:02}.js").write_text("x")
        time.sleep(0.005)
    touched, _ = touched_entries(tree)
    assert touched.count == 41
    assert touched.names[0] == f"{CORE}/39.js"
    reason = broken_seal(tree, touched)
    assert reason is not None
    assert "and 36 more; it has 43 files, its seal says 3" in reason
