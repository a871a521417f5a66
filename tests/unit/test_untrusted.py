"""Fault 31: what a gateway could have planted is not followed, not waited for and not believed."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
from pathlib import Path

import psutil
import pytest

from agent.openclaw.settings import CONFIG, apply_overlays, last_touched_version, read_settings
from agent.openclaw.sweep import AHEAD, CHUNK, LARGE, read_and_hash
from agent.openclaw.tree import SEAL, hash_tree, read_seal
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.snapshots import CHECKED, WHOLE, Snapshots
from shared.errors import TooLargeError, UntrustedError
from shared.untrusted import Folder, open_folder, open_plain
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
    before = hash_tree(outside), hash_tree(state.parent)
    with pytest.raises(UntrustedError, match="is a link"):
        snapshots.restore(bookmark)
    assert (hash_tree(outside), hash_tree(state.parent)) == before


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


def test_the_hash_of_a_tree_is_the_one_that_seals_hold(tmp_path: Path) -> None:
    """The number is stored in seals and compared between peers: it never changes (decision 0006)."""
    tree = tmp_path / "tree"
    for folder in ("a", "a-b", "a/b", "empty", "\U0001f600"):
        (tree / folder).mkdir(parents=True)
    contents = {"a/x": b"1", "a-b/x": b"2", "a.b": b"3", "a/b/c": b"", "a/COMPLETE": b"4"}
    contents |= {"COMPLETE": b"seal", "large": bytes(300_000), "huge": bytes(range(256)) * 20_000}
    contents |= {"\U0001f600/\xe4": b"5", "\udcff": b"6", "\uffee": b"7"}
    for name, body in contents.items():
        (tree / name).write_bytes(body)
        (tree / name).chmod(0o644)
    (tree / "a/x").chmod(0o755)
    (tree / "a.b").chmod(0o654)
    for name, target in {"link": "nowhere", "way": "a", "a/COMPLETE.l": "/"}.items():
        (tree / name).symlink_to(target)
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        assert hash_tree(tree) == (
            "c137d49f897bd61f59c903b9c45ddbfed9e985630be8f52905739a5717f0a5c1",
            10,
            5_420_007,
        )


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_files_of_every_size_are_read_to_their_last_byte(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * size)
    whole = hash_tree(tmp_path)
    expected = hashlib.sha256(b"a" * size).digest()
    line = b"\0\0\0\4file" + b"f\0-" + expected
    assert whole == (hashlib.sha256(line).hexdigest(), 1, size)
    if size:
        with file.open("r+b") as changed:
            changed.seek(size - 1)
            changed.write(b"b")
        assert hash_tree(tmp_path) != whole


def test_more_large_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    """launchd gives a process 256 descriptors."""
    for number in range(300):
        (tmp_path / str(number)).touch()
        os.truncate(tmp_path / str(number), LARGE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = psutil.Process().num_fds()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + AHEAD + 10, before[1]))
    try:
        assert hash_tree(tmp_path)[1:] == (300, 300 * LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert psutil.Process().num_fds() == used, "nothing stays open"


@pytest.mark.parametrize("size", [1, LARGE])
def test_what_cannot_be_read_has_no_hash_and_is_closed(tmp_path: Path, size: int) -> None:
    """A folder's descriptor opens, and fails when it is read."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        read_and_hash(fd, size)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_an_entry_that_changes_its_kind_under_the_reader_is_refused(
    tmp_path: Path, outside: Path, kind: str
) -> None:
    """Listed as a file or a folder, and something else by the time it is opened."""
    what = tmp_path / "what"
    if kind == "link":
        what.symlink_to(outside)
    elif kind == "folder":
        what.mkdir()
    else:
        os.mkfifo(what)
    with Folder.own(tmp_path) as folder:
        with pytest.raises(UntrustedError, match="what is"):
            os.close(open_plain("what", folder.fd, "what")[0])
        if kind != "folder":
            with pytest.raises(UntrustedError, match="what is"):
                os.close(open_folder("what", folder.fd, "what"))


def test_a_tree_that_is_a_link_is_not_hashed(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "tree").symlink_to(outside)
    with pytest.raises(UntrustedError, match="is a link"):
        hash_tree(tmp_path / "tree")


@pytest.mark.parametrize("plant", ["link", "fifo"])
def test_a_planted_seal_is_refused(tmp_path: Path, outside: Path, plant: str) -> None:
    if plant == "link":
        (tmp_path / SEAL).symlink_to(outside / CONFIG)
    else:
        os.mkfifo(tmp_path / SEAL)
    with pytest.raises(UntrustedError):
        read_seal(tmp_path)
