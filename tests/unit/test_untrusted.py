"""Fault 31: what a gateway could have planted is not followed, not waited for and not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.openclaw.settings import CONFIG, apply_overlays, last_touched_version, read_settings
from agent.openclaw.tree import SEAL, hash_tree, read_seal
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.snapshots import CHECKED, WHOLE, Snapshots
from shared.errors import TooLargeError, UntrustedError
from shared.untrusted import Folder
from tests.unit.test_snapshots import bookmark_of, make_state, spoil


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What a planted link leads to; it must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / CONFIG).write_text('{"secret": 1}')
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return make_state(tmp_path / "home")


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    (tmp_path / "bookmarks").mkdir()
    return Snapshots(Bookmarks(tmp_path / "bookmarks"), str(tmp_path))


def test_a_file_is_read_and_replaced_and_keeps_its_mode(state: Path) -> None:
    with Folder.guarded(state) as folder:
        assert folder.read("agents/main/sessions.jsonl", max_bytes=10) == b"one\n"
        folder.replace(CONFIG, b"{}")
        assert sorted(folder.names()) == sorted([CONFIG, "agents", "link", "secret"])
    assert (state / CONFIG).read_text() == "{}"
    assert (state / CONFIG).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("plant", ["link", "fifo", "folder", "large", "parent"])
def test_what_is_not_a_plain_file_is_refused_at_once(
    state: Path, outside: Path, plant: str
) -> None:
    (state / CONFIG).unlink()
    name = CONFIG
    if plant == "link":
        (state / CONFIG).symlink_to(outside / CONFIG)
    elif plant == "fifo":
        os.mkfifo(state / CONFIG)
    elif plant == "folder":
        (state / CONFIG).mkdir()
    elif plant == "large":
        (state / CONFIG).write_bytes(bytes(101))
    else:
        (state / "way").symlink_to(outside)
        name = f"way/{CONFIG}"
    with Folder.guarded(state) as folder, pytest.raises((UntrustedError, TooLargeError)):
        folder.read(name, max_bytes=100)


def test_a_planted_openclaw_json_is_neither_read_nor_written(state: Path, outside: Path) -> None:
    (state / CONFIG).unlink()
    (state / CONFIG).symlink_to(outside / CONFIG)
    for attempt in (
        lambda: read_settings(state),
        lambda: last_touched_version(state),
        lambda: apply_overlays(state, [{"a": 1}], Path("/tree")),
    ):
        with pytest.raises(UntrustedError, match="is a link"):
            attempt()
    assert (outside / CONFIG).read_text() == '{"secret": 1}'


def test_a_planted_state_directory_is_not_entered(state: Path, outside: Path) -> None:
    state.rename(state.with_name("away"))
    state.symlink_to(outside)
    with pytest.raises(UntrustedError, match="is a link"):
        read_settings(state)


def test_a_link_is_in_the_way_of_a_replacement_and_is_replaced_itself(
    state: Path, outside: Path
) -> None:
    """Between the look and the write somebody plants one: the rename takes its name, not its target."""
    with Folder.guarded(state) as folder:
        (state / CONFIG).unlink()
        (state / CONFIG).symlink_to(outside / CONFIG)
        folder.replace(CONFIG, b"{}")
    assert not (state / CONFIG).is_symlink()
    assert (outside / CONFIG).read_text() == '{"secret": 1}'


def test_a_folder_that_was_opened_stays_the_one_that_was_opened(state: Path, outside: Path) -> None:
    with Folder.guarded(state) as folder:
        state.rename(state.with_name("away"))
        state.symlink_to(outside)
        assert folder.read(CONFIG, max_bytes=100) == b'{"gateway": {"mode": "local"}}'


@pytest.mark.parametrize("path", ["relative/x", "/etc/../etc"])
def test_only_plain_absolute_paths_are_walked(path: str) -> None:
    with pytest.raises(UntrustedError, match="plain absolute"):
        Folder.guarded(Path(path))


def test_a_link_on_the_way_is_followed_only_where_root_alone_can_write(
    state: Path, outside: Path, tmp_path: Path
) -> None:
    """As macOS has /tmp and /var; in a folder that others can write it is refused."""
    way = tmp_path / "ways"
    way.mkdir(mode=0o755)
    (way / "in").symlink_to(state.parent)
    (way / "round").symlink_to("round")
    if os.geteuid() == 0:
        Folder.guarded(way / "in" / ".openclaw").__exit__()
        with pytest.raises(UntrustedError, match="circle"):
            Folder.guarded(way / "round" / "x")
    way.chmod(0o777)
    with pytest.raises(UntrustedError, match="a link at 'in'"):
        Folder.guarded(way / "in" / ".openclaw")


@pytest.mark.parametrize("place", ["state", "parent", "file"])
def test_a_snapshot_is_never_of_what_a_link_leads_to(
    snapshots: Snapshots, tmp_path: Path, outside: Path, place: str
) -> None:
    holder = tmp_path / "holder"
    holder.mkdir(mode=0o777)
    holder.chmod(0o777)
    work = holder / "parent" / "work"
    if place == "parent":
        (holder / "parent").symlink_to(outside)
        (outside / "work").mkdir()
    elif place == "state":
        work.parent.mkdir()
        work.symlink_to(outside)
    else:
        work.parent.mkdir()
        work.write_text("a file")
    with pytest.raises(UntrustedError):
        bookmark_of(snapshots, [work])


@pytest.mark.parametrize("suffix", ["", ".restored", ".failed-u1"])
def test_a_link_planted_where_the_state_is_restored_is_refused(
    snapshots: Snapshots, state: Path, outside: Path, suffix: str
) -> None:
    bookmark = bookmark_of(snapshots, [state])
    spoil(state)
    if not suffix:
        state.rename(state.with_name("away"))
    state.with_name(f"{state.name}{suffix}").symlink_to(outside)
    before = hash_tree(outside), hash_tree(state)
    with pytest.raises(UntrustedError, match="is a link"):
        snapshots.restore(bookmark)
    assert (hash_tree(outside), hash_tree(state)) == before


def test_a_planted_copy_is_not_taken_for_ours(snapshots: Snapshots, state: Path) -> None:
    """A gateway that knows the names must not choose what is restored."""
    bookmark = bookmark_of(snapshots, [state])
    room = state.with_name(f"{state.name}.restored")
    (room / WHOLE).mkdir(parents=True)
    (room / CHECKED).mkdir()
    room.chmod(0o755)
    with pytest.raises(UntrustedError, match="not the agent's own"):
        snapshots.restore(bookmark)


def test_a_planted_failed_folder_does_not_keep_the_state_from_coming_back(
    snapshots: Snapshots, state: Path
) -> None:
    before = hash_tree(state)
    bookmark = bookmark_of(snapshots, [state])
    spoil(state)
    state.with_name(f"{state.name}.failed-u1").mkdir()
    kept = snapshots.restore(bookmark)
    assert hash_tree(state) == before
    assert (Path(kept[0]) / "new.sqlite").exists()
    assert snapshots.restore(bookmark) == kept, "the second time nothing is left to do"


def test_a_tree_is_hashed_without_following_or_waiting(tmp_path: Path, outside: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    (tree / "link").symlink_to(outside)
    os.mkfifo(tree / "pipe")
    before = hash_tree(tree)
    assert before[1:] == (1, 1)
    (outside / "more").write_text("y")
    assert hash_tree(tree) == before
    (tree / "link").unlink()
    (tree / "link").symlink_to("/")
    assert hash_tree(tree) != before


@pytest.mark.parametrize("plant", ["link", "fifo"])
def test_a_planted_seal_is_refused(tmp_path: Path, outside: Path, plant: str) -> None:
    if plant == "link":
        (tmp_path / SEAL).symlink_to(outside / CONFIG)
    else:
        os.mkfifo(tmp_path / SEAL)
    with pytest.raises(UntrustedError):
        read_seal(tmp_path)
