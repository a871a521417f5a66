from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.openclaw.tree import hash_tree
from agent.upgrade.bookmark import Bookmark, Bookmarks
from agent.upgrade.snapshots import CHECKED, WHOLE, Snapshots
from shared.errors import UntrustedError


def make_state(root: Path) -> Path:
    state = root / ".openclaw"
    (state / "agents" / "main").mkdir(parents=True)
    (state / "openclaw.json").write_text('{"gateway": {"mode": "local"}}')
    (state / "agents" / "main" / "sessions.jsonl").write_text("one\n")
    (state / "link").symlink_to("agents/main")
    (state / "secret").write_text("s")
    (state / "secret").chmod(0o600)
    return state


def bookmark_of(snapshots: Snapshots, folders: list[Path]) -> Bookmark:
    empty = Bookmark(
        upgrade="u1",
        previous="a" * 64,
        previous_version="2026.7.35",
        created=1.0,
        weight=100,
        readiness={},
        installed="",
    )
    snapshots.bookmarks.write(empty)
    complete = empty.model_copy(update={"folders": snapshots.snapshot("u1", folders)})
    snapshots.bookmarks.write(complete)
    return complete


def spoil(state: Path) -> None:
    (state / "openclaw.json").write_text("{}")
    (state / "new.sqlite").write_text("schema 18")
    shutil.rmtree(state / "agents")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Snapshots, Path, Path]:
    root = tmp_path / "bookmarks"
    root.mkdir()
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "AGENTS.md").write_text("be kind")
    return Snapshots(Bookmarks(root), str(tmp_path)), make_state(tmp_path), workspace


def test_state_and_workspaces_come_back_to_the_byte(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, workspace = place
    before = [hash_tree(folder) for folder in (state, workspace)]
    bookmark = bookmark_of(snapshots, [state, workspace])
    spoil(state)
    (workspace / "AGENTS.md").unlink()
    kept = snapshots.restore(bookmark)
    assert [hash_tree(folder) for folder in (state, workspace)] == before
    assert (state / "secret").stat().st_mode & 0o777 == 0o600
    assert (Path(kept[0]) / "new.sqlite").exists(), "what the new release wrote is kept for people"


@pytest.mark.parametrize("cut", range(5))
def test_a_restore_that_was_cut_short_is_finished_by_the_next(
    place: tuple[Snapshots, Path, Path], cut: int, tmp_path: Path
) -> None:
    """Bring about by hand every state that a kill can leave between two renames."""
    snapshots, state, _ = place
    before = hash_tree(state)
    bookmark = bookmark_of(snapshots, [state])
    spoil(state)
    copy = snapshots.bookmarks.folder("u1") / bookmark.folders[0].copy_name
    room = tmp_path / ".openclaw.restored"
    whole = room / WHOLE
    if cut == 0:
        whole.mkdir(parents=True)
        (whole / "half").touch()
    if cut in (1, 2, 3):
        shutil.copytree(copy, whole, symlinks=True)
        (room / CHECKED).mkdir()
    if cut in (0, 1, 2, 3):
        room.chmod(0o700)
    if cut in (2, 3):
        state.rename(tmp_path / ".openclaw.failed-u1")
    if cut == 3:
        whole.rename(state)
    if cut == 4:
        snapshots.restore(bookmark)
        (room / CHECKED).mkdir(parents=True)
    snapshots.restore(bookmark)
    assert hash_tree(state) == before
    assert not room.exists()
    assert (tmp_path / ".openclaw.failed-u1" / "new.sqlite").exists()


def test_a_copy_that_was_changed_is_not_restored(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    bookmark = bookmark_of(snapshots, [state])
    copy = snapshots.bookmarks.folder("u1") / bookmark.folders[0].copy_name
    (copy / "openclaw.json").write_text("{}")
    before = hash_tree(state)
    with pytest.raises(UntrustedError, match="not what was saved"):
        snapshots.restore(bookmark)
    assert hash_tree(state) == before


def test_a_folder_that_did_not_exist_is_taken_away_again(
    place: tuple[Snapshots, Path, Path],
) -> None:
    snapshots, state, _ = place
    extra = state.parent / "extra"
    bookmark = bookmark_of(snapshots, [extra])
    extra.mkdir()
    snapshots.restore(bookmark)
    assert not extra.exists()


def test_a_folder_that_is_a_link_is_refused(place: tuple[Snapshots, Path, Path]) -> None:
    """Fault 31: a copy of a link would save nothing."""
    snapshots, state, _ = place
    moved = state.rename(state.with_name("elsewhere"))
    state.symlink_to(moved)
    with pytest.raises(UntrustedError, match="is a link"):
        bookmark_of(snapshots, [state])


def test_names_that_are_not_utf_8_are_saved_too(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    strange = Path(os.fsdecode(os.fsencode(state) + b"/\xff\xfe"))
    strange.write_text("x")
    bookmark = bookmark_of(snapshots, [state])
    strange.unlink()
    snapshots.restore(bookmark)
    assert strange.read_text() == "x"


def test_a_snapshot_made_again_starts_anew(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    bookmark_of(snapshots, [state])
    (state / "openclaw.json").write_text("changed")
    again = snapshots.snapshot("u1", [state])
    assert again[0].sha256 == hash_tree(state)[0]


def test_a_socket_in_the_state_does_no_harm(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    os.mkfifo(state / "pipe")
    bookmark = bookmark_of(snapshots, [state])
    snapshots.restore(bookmark)
    assert (state / "openclaw.json").exists()


def change_everything(state: Path) -> None:
    """Of each kind one: other content, another kind, gone, new, another mode, a database, a folder anew."""
    (state / "openclaw.json").write_text('{"gateway": {"mode": "other"}}')
    (state / "link").unlink()
    (state / "link").mkdir()
    (state / "link" / "deep").write_text("was a link")
    (state / "secret").unlink()
    (state / "new" / "er").mkdir(parents=True)
    (state / "new" / "er" / "-file").write_text("new")
    (state / "agents").chmod(0o711)
    (state / "agents" / "main" / "more.jsonl").write_text("two")
    (state / "runs.sqlite-wal").write_bytes(b"b" * 10)
    shutil.rmtree(state / "old")
    (state / "old").mkdir()
    (state / "old" / "other").write_text("x")


def make_rich(state: Path) -> None:
    (state / "runs.sqlite-wal").write_bytes(b"a" * 10)
    (state / "old" / "deep").mkdir(parents=True)
    (state / "old" / "deep" / "file").write_text("y")
    (state / "unchanged").write_text("z")


def test_a_warm_copy_is_brought_up_to_date(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, workspace = place
    make_rich(state)
    snapshots.warm("u1", [state, workspace])
    change_everything(state)
    saved = snapshots.snapshot("u1", [state, workspace])
    copy = snapshots.bookmarks.folder("u1") / saved[0].copy_name
    assert saved[0].sha256 == hash_tree(state)[0] == hash_tree(copy)[0]
    modes = [
        {path.relative_to(root): path.lstat().st_mode for path in root.rglob("*")}
        for root in (state, copy)
    ]
    assert modes[0] == modes[1]
    assert not list(copy.parent.glob("*.warm"))


def test_a_database_is_copied_again_though_nothing_shows_a_change(
    place: tuple[Snapshots, Path, Path],
) -> None:
    """A write through a mapping may move no time; here the copy is spoilt instead."""
    snapshots, state, _ = place
    make_rich(state)
    (warm,) = snapshots.warm("u1", [state])
    (warm / "runs.sqlite-wal").write_bytes(b"torn")
    (saved,) = snapshots.snapshot("u1", [state])
    copy = snapshots.bookmarks.folder("u1") / saved.copy_name
    assert (copy / "runs.sqlite-wal").read_bytes() == b"a" * 10


def test_what_moved_under_the_warm_copy_is_not_trusted(
    place: tuple[Snapshots, Path, Path],
) -> None:
    """As if files had come, gone and changed between the look and the copy."""
    snapshots, state, _ = place
    make_rich(state)
    (warm,) = snapshots.warm("u1", [state])
    (warm / "stray").write_text("gone again")
    (warm / "old" / "deep" / "file").unlink()
    (warm / "strange").mkdir()
    (warm / "strange" / "x").write_text("x")
    (state / "old" / "deep" / "file").write_text("changed as well")
    (saved,) = snapshots.snapshot("u1", [state])
    assert saved.sha256 == hash_tree(state)[0]


def test_a_warm_copy_of_another_life_is_not_used(place: tuple[Snapshots, Path, Path]) -> None:
    """The agent was killed in between: what it knew of the copy went with it."""
    snapshots, state, _ = place
    (warm,) = snapshots.warm("u1", [state])
    (warm / "openclaw.json").write_text("half")
    again = Snapshots(snapshots.bookmarks, str(state.parent))
    assert not again.is_warm("u1")
    (saved,) = again.snapshot("u1", [state])
    assert saved.sha256 == hash_tree(state)[0]
    assert not list(warm.parent.glob("*.warm"))


def test_a_restore_can_be_prepared_before(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    before = hash_tree(state)
    bookmark = bookmark_of(snapshots, [state])
    snapshots.prepare(bookmark)
    spoil(state)
    shutil.rmtree(snapshots.bookmarks.folder("u1") / bookmark.folders[0].copy_name)
    snapshots.restore(bookmark)
    assert hash_tree(state) == before


def test_what_a_rollback_would_lose_is_named(place: tuple[Snapshots, Path, Path]) -> None:
    snapshots, state, _ = place
    bookmark = bookmark_of(snapshots, [state])
    assert snapshots.written_since(bookmark) == []
    (state / "agents" / "main" / "sessions.jsonl").write_text("one\ntwo\n")
    (state / "later").write_text("x")
    assert snapshots.written_since(bookmark) == [
        str(state / "agents" / "main" / "sessions.jsonl"),
        str(state / "later"),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_without_room_for_a_copy_the_bookmarks_own_goes_back(tmp_path: Path) -> None:
    """Fault 36 at the worst time, on a real file system of two megabytes."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp_path], check=True)
    try:
        (tmp_path / "bookmarks").mkdir()
        snapshots = Snapshots(Bookmarks(tmp_path / "bookmarks"), str(tmp_path))
        state = make_state(tmp_path)
        (state / "big").write_bytes(os.urandom(900_000))
        before = hash_tree(state)
        bookmark = bookmark_of(snapshots, [state])
        (state / "openclaw.json").write_text("{}")
        snapshots.restore(bookmark)
        assert hash_tree(state) == before
    finally:
        subprocess.run(["/bin/umount", tmp_path], check=True)


def test_a_copy_that_was_moved_for_lack_of_room_is_found_again(
    place: tuple[Snapshots, Path, Path],
) -> None:
    """Killed between that move and the sign that the copy was checked."""
    snapshots, state, _ = place
    before = hash_tree(state)
    bookmark = bookmark_of(snapshots, [state])
    spoil(state)
    room = state.with_name(f"{state.name}.restored")
    room.mkdir(mode=0o700)
    (snapshots.bookmarks.folder("u1") / bookmark.folders[0].copy_name).rename(room / WHOLE)
    snapshots.restore(bookmark)
    assert hash_tree(state) == before
