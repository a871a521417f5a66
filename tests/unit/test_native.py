"""The native installer's judgement and its copies. Its whole way is in tests/openclaw/test_native_real.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.openclaw.tree import hash_tree
from agent.upgrade.context import StepFailed
from agent.upgrade.installers.nativepackage import PackageCopy, find_leftovers, remove_leftovers
from agent.upgrade.installers.nativerecord import fitting
from agent.upgrade.installers.nativerun import judge_update, unfinished_run
from shared.command import Output
from shared.errors import UntrustedError
from tests.unit.test_plugins import lock_of

NEW = "2026.9.6"
GOOD: dict[str, Any] = {
    "status": "ok",
    "before": {"version": "2026.9.5"},
    "after": {"version": NEW},
    "runId": "r",
    "durationMs": 5,
    "steps": [
        {"name": "global update", "exitCode": 0, "durationMs": 3, "stdoutTail": "x" * 9000},
        {"name": "openclaw doctor", "exitCode": 0, "durationMs": 2},
    ],
}


def output(value: Any, code: int | None = 0) -> Output:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Output(("openclaw",), code, raw, b"it said so", 1.0)


def test_an_update_that_ended_well_is_told_in_our_phases() -> None:
    evidence = judge_update(output(GOOD), NEW)
    assert (evidence["before"], evidence["after"], evidence["doctor_left"]) == (
        "2026.9.5",
        NEW,
        False,
    )
    assert [each["phase"] for each in evidence["steps"]] == ["staged", "migrated"]
    assert len(json.dumps(evidence)) < 1000


def test_doctors_own_failure_is_left_to_the_phase_that_repeats_it() -> None:
    """As 2026.7.35 reported it on its way to 2026.9.6."""
    steps = [GOOD["steps"][0], {"name": "openclaw doctor", "exitCode": 1}]
    value = {**GOOD, "status": "error", "reason": "openclaw doctor", "steps": steps}
    assert judge_update(output(value, 1), NEW)["doctor_left"] is True
    swap = {**value, "steps": [{"name": "global install swap", "exitCode": 1}]}
    with pytest.raises(StepFailed, match="ended with 1, error: openclaw doctor"):
        judge_update(output(swap, 1), NEW)
    with pytest.raises(StepFailed):
        judge_update(output({**value, "after": {"version": "2026.9.5"}}, 1), NEW)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (output(GOOD, None), "did not end within"),
        (output(GOOD, 75), "handed over to a helper"),
        (output(b"no JSON", 1), r"printed no JSON \(1\): it said so"),
        (output({**GOOD, "status": "skipped", "reason": "dry-run"}), "skipped: dry-run"),
        (output(GOOD, 1), "ended with 1, ok"),
        (output({**GOOD, "after": {}}), f"installed None, not {NEW}"),
        (output({**GOOD, "after": {"version": "2026.9.4"}}), "installed 2026.9.4"),
        (
            output({**GOOD, "status": "error", "failedStep": {"name": "post-install-verify"}}, 1),
            "error: post-install-verify",
        ),
    ],
)
def test_anything_else_is_a_failure_that_says_why(done: Output, said: str) -> None:
    with pytest.raises(StepFailed, match=said):
        judge_update(done, NEW)


def test_an_update_of_somebody_else_is_in_the_way(tmp_path: Path) -> None:
    fine = {"update": {"root": str(tmp_path), "installKind": "package", "packageManager": "npm"}}
    assert unfinished_run(fine, tmp_path) is None
    stuck = {**fine, "activeRun": {"runId": "d0f9", "phase": "activating", "status": "running"}}
    assert unfinished_run(stuck, tmp_path) == "OpenClaw's own update d0f9 is still activating"
    assert "would update" in str(unfinished_run(fine, tmp_path / "other"))
    assert "takes its installation for" in str(unfinished_run({}, tmp_path))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    package = tmp_path / "prefix" / "lib" / "node_modules" / "openclaw"
    (package / "dist").mkdir(parents=True)
    (package / "dist" / "index.js").write_text("old")
    (package / "openclaw.mjs").write_text("old")
    launcher = tmp_path / "prefix" / "bin" / "openclaw"
    launcher.parent.mkdir()
    launcher.symlink_to("../lib/node_modules/openclaw/openclaw.mjs")
    (tmp_path / "bookmark").mkdir()
    return tmp_path / "prefix"


def copy_of(prefix: Path) -> PackageCopy:
    return PackageCopy(prefix.parent / "bookmark", prefix, "home")


@pytest.mark.parametrize("left", ["another version", "nothing", "what a killed rollback left"])
def test_the_package_goes_back_as_it_was_whatever_stands_there(prefix: Path, left: str) -> None:
    copy, modules = copy_of(prefix), prefix / "lib" / "node_modules"
    copy.make()
    before, _, _ = hash_tree(modules)
    (modules / "openclaw" / "dist" / "index.js").write_text("new")
    for name in (
        ".openclaw.package-backup-x",
        ".openclaw.update-stage-x",
        ".openclaw.rollcall-old-x",
    ):
        (modules / name).mkdir()
    if left != "another version":
        shutil.rmtree(modules / "openclaw")
    (prefix / "bin" / "openclaw").unlink()
    assert len(find_leftovers(modules)) == 2
    for _ in range(2):
        copy_of(prefix).put_back()
        remove_leftovers(modules)
    assert hash_tree(modules)[0] == before
    assert (prefix / "bin" / "openclaw").read_text() == "old"


def test_a_copy_that_was_changed_is_not_put_back(prefix: Path) -> None:
    copy_of(prefix).make()
    (prefix.parent / "bookmark" / "package" / "openclaw.mjs").write_text("evil")
    entry = prefix / "lib" / "node_modules" / "openclaw" / "openclaw.mjs"
    entry.write_text("new")
    with pytest.raises(UntrustedError, match="is not what was copied"):
        copy_of(prefix).put_back()
    assert entry.read_text() == "new"
    assert len(list(entry.parents[1].iterdir())) == 1


def test_only_what_npm_would_install_here_is_fetched() -> None:
    lock = lock_of(
        {
            "node_modules/openclaw": {},
            "node_modules/elsewhere": {"os": ["aix"]},
            "node_modules/not-there": {"os": ["!aix"]},
            "node_modules/other-cpu": {"cpu": ["s390x"]},
        }
    )
    assert [each.name for each in fitting(lock).packages] == ["openclaw", "not-there"]
