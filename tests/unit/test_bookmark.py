from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.openclaw.tree import hash_tree
from agent.upgrade.bookmark import CHECKED, WHOLE, Bookmark, Bookmarks
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


def bookmark_of(bookmarks: Bookmarks, folders: list[Path]) -> Bookmark:
    empty = Bookmark(
        upgrade="u1",
        previous="a" * 64,
        previous_version="2026.7.35",
        created=1.0,
        weight=100,
        readiness={},
        installed="",
    )
    bookmarks.write(empty)
    complete = empty.model_copy(update={"folders": bookmarks.snapshot("u1", folders)})
    bookmarks.write(complete)
    return complete


def spoil(state: Path) -> None:
    (state / "openclaw.json").write_text("{}")
    (state / "new.sqlite").write_text("schema 18")
    shutil.rmtree(state / "agents")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Bookmarks, Path, Path]:
    root = tmp_path / "bookmarks"
    root.mkdir()
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "AGENTS.md").write_text("be kind")
    return Bookmarks(root, str(tmp_path)), make_state(tmp_path), workspace


def test_state_and_workspaces_come_back_to_the_byte(place: tuple[Bookmarks, Path, Path]) -> None:
    bookmarks, state, workspace = place
    before = [hash_tree(folder) for folder in (state, workspace)]
    bookmark = bookmark_of(bookmarks, [state, workspace])
    spoil(state)
    (workspace / "AGENTS.md").unlink()
    kept = bookmarks.restore(bookmark)
    assert [hash_tree(folder) for folder in (state, workspace)] == before
    assert (state / "secret").stat().st_mode & 0o777 == 0o600
    assert (Path(kept[0]) / "new.sqlite").exists(), "what the new release wrote is kept for people"


@pytest.mark.parametrize("cut", range(5))
def test_a_restore_that_was_cut_short_is_finished_by_the_next(
    place: tuple[Bookmarks, Path, Path], cut: int, tmp_path: Path
) -> None:
    """Bring about by hand every state that a kill can leave between two renames."""
    bookmarks, state, _ = place
    before = hash_tree(state)
    bookmark = bookmark_of(bookmarks, [state])
    spoil(state)
    copy = bookmarks.folder("u1") / bookmark.folders[0].copy_name
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
        bookmarks.restore(bookmark)
    bookmarks.restore(bookmark)
    assert hash_tree(state) == before
    assert not room.exists()
    assert (tmp_path / ".openclaw.failed-u1" / "new.sqlite").exists()


def test_a_copy_that_was_changed_is_not_restored(place: tuple[Bookmarks, Path, Path]) -> None:
    bookmarks, state, _ = place
    bookmark = bookmark_of(bookmarks, [state])
    copy = bookmarks.folder("u1") / bookmark.folders[0].copy_name
    (copy / "openclaw.json").write_text("{}")
    before = hash_tree(state)
    with pytest.raises(UntrustedError, match="not what was saved"):
        bookmarks.restore(bookmark)
    assert hash_tree(state) == before


def test_a_folder_that_did_not_exist_is_taken_away_again(
    place: tuple[Bookmarks, Path, Path],
) -> None:
    bookmarks, state, _ = place
    extra = state.parent / "extra"
    bookmark = bookmark_of(bookmarks, [extra])
    extra.mkdir()
    bookmarks.restore(bookmark)
    assert not extra.exists()


def test_a_folder_that_is_a_link_is_refused(place: tuple[Bookmarks, Path, Path]) -> None:
    """Fault 31: a copy of a link would save nothing."""
    bookmarks, state, _ = place
    moved = state.rename(state.with_name("elsewhere"))
    state.symlink_to(moved)
    with pytest.raises(UntrustedError, match="is a link"):
        bookmark_of(bookmarks, [state])


def test_names_that_are_not_utf_8_are_saved_too(place: tuple[Bookmarks, Path, Path]) -> None:
    bookmarks, state, _ = place
    strange = Path(os.fsdecode(os.fsencode(state) + b"/\xff\xfe"))
    strange.write_text("x")
    bookmark = bookmark_of(bookmarks, [state])
    strange.unlink()
    bookmarks.restore(bookmark)
    assert strange.read_text() == "x"


def test_a_snapshot_made_again_starts_anew(place: tuple[Bookmarks, Path, Path]) -> None:
    bookmarks, state, _ = place
    bookmark_of(bookmarks, [state])
    (state / "openclaw.json").write_text("changed")
    again = bookmarks.snapshot("u1", [state])
    assert again[0].sha256 == hash_tree(state)[0]


def test_a_socket_in_the_state_does_no_harm(place: tuple[Bookmarks, Path, Path]) -> None:
    bookmarks, state, _ = place
    os.mkfifo(state / "pipe")
    bookmark = bookmark_of(bookmarks, [state])
    bookmarks.restore(bookmark)
    assert (state / "openclaw.json").exists()
