"""Releases, locks, overlays and trees."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from agent.openclaw.settings import apply_overlays, last_touched_version, read_settings
from agent.openclaw.tree import LOCK, SEAL, read_facts, seal_tree, verify_tree
from shared.archive import read_json_file
from shared.errors import BadInputError, UntrustedError
from shared.lock import parse_lock
from shared.mergepatch import merge_patch
from shared.release import ReleaseManifest, bound_of, check_floor, check_unexpired, parse_release
from shared.roster import Role


def manifest(**changes: Any) -> ReleaseManifest:
    values: dict[str, Any] = {
        "name": "2026.9.6+1",
        "openclaw": "2026.9.6",
        "dependencies": {"openclaw": "2026.9.6"},
        "lock_sha256": "a" * 64,
        "node_engine": ">=24.16.0 <25",
        "created": 1.0,
        "expires": 100.0,
    }
    return ReleaseManifest.model_validate({**values, **changes})


def test_a_release_is_named_by_its_content() -> None:
    release = parse_release(manifest().canonical())
    assert parse_release(release.manifest.canonical()) == release
    other = parse_release(manifest(overlay={"canary": {"a": 1}}).canonical())
    assert other.id != release.id


def test_an_expired_release_is_refused() -> None:
    release = parse_release(manifest().canonical())
    check_unexpired(release, 99.0)
    with pytest.raises(UntrustedError, match="expired"):
        check_unexpired(release, 100.0)


@pytest.mark.parametrize(
    ("floor", "target", "allowed"),
    [
        (None, "2026.9.6", True),
        (None, "2026.10.1", True),
        (None, "2026.8.1", False),
        ("2026.8.1", "2026.8.1", True),
        ("2026.8.1", "2026.7.35", False),
        ("2026.7.35", "2026.8.1", True),
        ("2026.9.6", "2026.8.1", False),
    ],
)
def test_an_older_release_needs_the_newer_ones_leave(
    floor: str | None, target: str, allowed: bool
) -> None:
    """Fault 32."""
    named = None if floor is None else {"name": floor, "openclaw": floor, "created": 0}
    newest = parse_release(manifest(openclaw="2026.9.6", floor=named).canonical())
    older = parse_release(
        manifest(openclaw=target, created=0.5 if target < "2026.9" else 2).canonical()
    )
    check_floor(older, None)
    if allowed:
        check_floor(older, bound_of(newest))
    else:
        with pytest.raises(UntrustedError, match="is older than"):
            check_floor(older, bound_of(newest))


def test_of_one_version_the_release_that_was_frozen_later_is_newer() -> None:
    first, second = (parse_release(manifest(created=at).canonical()) for at in (1.0, 2.0))
    check_floor(second, bound_of(first))
    with pytest.raises(UntrustedError, match="no way back"):
        check_floor(first, bound_of(second))


@pytest.mark.parametrize(
    "changes",
    [
        {"openclaw": "1.0;rm -rf ~"},
        {"migrations": [{"id": "x", "words": ["doctor", "; rm -rf ~"]}]},
        {"migrations": [{"id": "../x", "words": ["doctor"]}]},
        {"agent": {"version": "1;x", "file": "rollcall-1.whl", "sha256": "a" * 64, "size": 1}},
        {"agent": {"version": "1.0", "file": "../rollcall-1.whl", "sha256": "a" * 64, "size": 1}},
        {"floor": {"name": "../x", "openclaw": "2026.7.35", "created": 0}},
        {"dependencies": {"left-pad": "1.0.0"}},
        {"dependencies": {"../../etc": "1", "openclaw": "1"}},
        {"overlay": {"everyone": {}}},
        {"name": "../x"},
        {"artifacts": [{"file": "../../x.tgz", "sha256": "a" * 64, "size": 1}]},
        {"artifacts": [{"file": "x.tgz", "sha256": "a" * 64, "size": 1 << 40}]},
    ],
)
def test_a_manifest_with_a_trick_in_it_does_not_parse(changes: dict[str, Any]) -> None:
    raw = json.dumps({**manifest().model_dump(mode="json"), **changes}).encode()
    with pytest.raises(BadInputError):
        ReleaseManifest.from_bytes(raw)


RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patch_as_the_rfc_shows_it(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result
    assert merge_patch(merge_patch(target, patch), patch) == result


def test_overlays_by_role_are_applied_once_over_json5(tmp_path: Path) -> None:
    (tmp_path / "openclaw.json").write_text("{ // a comment\n gateway: {mode: 'local', old: 1,}, }")
    overlays = manifest(
        overlay={
            "*": {"gateway": {"old": None}},
            "canary": {"plugins": {"paths": ["${release}/x"]}},
            "witness": {"gateway": {"mode": "remote"}},
        }
    ).overlays_for(Role.CANARY)
    for _ in range(2):
        apply_overlays(tmp_path, overlays, Path("/tree"))
    assert read_settings(tmp_path) == {
        "gateway": {"mode": "local"},
        "plugins": {"paths": ["/tree/x"]},
    }


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "{" * 4000])
def test_a_broken_openclaw_json_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "openclaw.json").write_text(text)
    with pytest.raises(BadInputError):
        read_settings(tmp_path)
    assert last_touched_version(tmp_path) is None


ELSEWHERE = "https://elsewhere.example/x.tgz"


def lock_with(**packages: dict[str, Any]) -> bytes:
    entries = {
        path: {"version": "1.0.0", "integrity": "sha512-x", **more}
        for path, more in packages.items()
    }
    return json.dumps({"lockfileVersion": 3, "packages": {"": {}, **entries}}).encode()


def test_a_lock_says_which_version_and_how_often() -> None:
    lock = parse_lock(
        lock_with(
            **{
                "node_modules/openclaw": {},
                "node_modules/a/node_modules/b": {},
                "node_modules/b": {},
            }
        )
    )
    assert lock.version_of("openclaw") == "1.0.0"
    assert lock.duplicates_of(["b", "openclaw"]) == ["b"]


@pytest.mark.parametrize(
    "packages",
    [
        {"node_modules/x": {"resolved": ELSEWHERE}},
        {"node_modules/x": {"resolved": "git+ssh://x"}},
        {"node_modules/x": {"integrity": None}},
        {"node_modules/x": {"integrity": "sha1-abc"}},
        {"node_modules/../../x": {}},
        {"../x": {}},
        {"node_modules/openclaw": {}, "node_modules/a/node_modules/openclaw": {}},
    ],
)
def test_a_lock_with_a_trick_in_it_is_refused(packages: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(BadInputError):
        parse_lock(lock_with(**packages))


@pytest.mark.parametrize("raw", [b"{}", b"[]", b'{"lockfileVersion": 2, "packages": {}}', b"x"])
def test_what_is_no_lock(raw: bytes) -> None:
    with pytest.raises(BadInputError):
        parse_lock(raw)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    core = tmp_path / "tree" / "node_modules" / "openclaw"
    core.mkdir(parents=True)
    (core / "package.json").write_text(
        json.dumps({"version": "1.0.0", "openclaw": {"schemaVersions": {"state": 18, "agent": 23}}})
    )
    (core / "index.js").write_text("1")
    (tmp_path / "tree" / LOCK).write_bytes(lock_with(**{"node_modules/openclaw": {}}))
    return tmp_path / "tree"


def test_a_sealed_tree_is_verified_file_by_file(tree: Path) -> None:
    sha256 = hashlib.sha256((tree / LOCK).read_bytes()).hexdigest()
    seal = seal_tree(tree, "f" * 64, [])
    assert verify_tree(tree, "f" * 64, sha256) == seal
    assert read_facts(tree).config_schema == "18/23"
    with pytest.raises(UntrustedError, match="not a complete tree of this release"):
        verify_tree(tree, "e" * 64, sha256)
    with pytest.raises(UntrustedError, match="not the lock that was signed"):
        verify_tree(tree, "f" * 64, "0" * 64)
    (tree / "node_modules" / "openclaw" / "index.js").write_text("2")
    with pytest.raises(UntrustedError, match="was changed"):
        verify_tree(tree, "f" * 64, sha256)


@pytest.mark.parametrize("change", ["add", "mode", "link", "seal"])
def test_every_kind_of_change_shows(tree: Path, change: str) -> None:
    sha256 = hashlib.sha256((tree / LOCK).read_bytes()).hexdigest()
    seal_tree(tree, "f" * 64, [])
    file = tree / "node_modules" / "openclaw" / "index.js"
    if change == "add":
        (tree / "node_modules" / "extra.js").write_text("x")
    elif change == "mode":
        file.chmod(0o755)
    elif change == "link":
        file.unlink()
        file.symlink_to("/etc/passwd")
    else:
        (tree / SEAL).unlink()
    with pytest.raises(UntrustedError):
        verify_tree(tree, "f" * 64, sha256)


def test_a_tarball_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(b"not a tarball")
    with pytest.raises(BadInputError, match="not an npm tarball"):
        read_json_file(path)
