"""Full copies of the folders that a gateway writes, and the way back to them.

`openclaw backup` is no way back (OPENCLAW.md, law 2); a copy is, made while the gateway is stopped. Most of it is
made before, while the gateway serves: with the gateway stopped only what has changed since is copied again. Copies
move into place by rename, so that half a copy is never taken for a whole one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

from agent.copying import copy_in, copy_names, copy_out
from agent.openclaw.sweep import digest_of, line_of
from agent.openclaw.tree import SEAL, hash_tree
from agent.upgrade.bookmark import Bookmark, Bookmarks, SavedFolder, failed_name
from agent.upgrade.inventory import Inventory, Stamp, compare, take_inventory
from shared.durable import full_sync, private_directory, sync_directory, write_durable
from shared.errors import CommandError, UntrustedError
from shared.failpoint import fail_point
from shared.untrusted import Folder

WHOLE, CHECKED = "whole", "checked"
"""In `<folder>.restored` while a restore goes on: the copy, and the sign that it was checked. The sign
without the copy means that the copy has been moved to its place."""


@dataclass
class _Warm:
    """A copy that was made while the gateway wrote: only what `trusted` has is known to be right."""

    trusted: Inventory
    lines: dict[str, bytes]


class Snapshots:
    """Blocking; steps call it in a thread. Raises UntrustedError for a folder that is a link or lies behind
    one that the gateway could have planted: the copy would be of something else (fault 31)."""

    def __init__(self, bookmarks: Bookmarks, home: str) -> None:
        self.bookmarks, self._home = bookmarks, home
        self._warm: dict[Path, _Warm] = {}

    def measure(self, folders: list[Path]) -> int:
        """Bytes in the folders as they are now: what a snapshot has to copy."""
        size = 0
        for original in folders:
            try:
                with Folder.guarded(original) as source:
                    size += _bytes(take_inventory(source))
            except FileNotFoundError:
                continue
        return size

    def warm(self, upgrade: str, folders: list[Path]) -> list[Path]:
        """Copy while the gateway serves. Whatever moves under the copy is copied again by `snapshot`.
        Returns the copies; there is none for a folder that does not exist."""
        private_directory(self.bookmarks.folder(upgrade))
        made = []
        for copy, original in self._places(upgrade, folders):
            warm = _warm_of(copy)
            shutil.rmtree(warm, ignore_errors=True)
            try:
                with Folder.guarded(original) as source:
                    self._warm[warm] = self._copy_warm(source, warm)
            except FileNotFoundError:
                continue
            made.append(warm)
        os.sync()
        return made

    def _copy_warm(self, source: Folder, warm: Path) -> _Warm:
        """cp complains of files that vanish under it; a full disk shows in what has arrived."""
        before = take_inventory(source)
        try:
            copy_out(source, warm, self._home)
        except CommandError:
            if not warm.is_dir() or shutil.disk_usage(warm).free < _bytes(before) // 10:
                raise
        with Folder.own(warm) as folder:
            arrived = take_inventory(folder)
        trusted = {
            path: stamp
            for path, stamp in before.items()
            if path in arrived
            and (arrived[path].is_folder if stamp.is_folder else stamp.is_copied_by(arrived[path]))
        }
        return _Warm(trusted, _lines(warm, [p for p, s in trusted.items() if not s.is_folder]))

    def is_warm(self, upgrade: str) -> bool:
        return any(copy.parent == self.bookmarks.folder(upgrade) for copy in self._warm)

    def snapshot(self, upgrade: str, folders: list[Path]) -> list[SavedFolder]:
        """With the gateway stopped: bring the warm copies up to date, or copy, and hash. Calling it again after
        a crash starts the unfinished copies anew."""
        for leftover in self.bookmarks.folder(upgrade).glob("*.partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        saved = [self._save(copy, original) for copy, original in self._places(upgrade, folders)]
        sync_directory(self.bookmarks.folder(upgrade))
        return saved

    def _save(self, copy: Path, original: Path) -> SavedFolder:
        shutil.rmtree(copy, ignore_errors=True)
        try:
            source = Folder.guarded(original)
        except FileNotFoundError:
            return SavedFolder(original=str(original), copy_name=copy.name, sha256=None)
        partial = _warm_of(copy)
        warm = self._warm.pop(partial, None)
        try:
            with source:
                if warm is not None and partial.is_dir():
                    digest = self._refresh(source, partial, warm)
                else:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial = copy.with_name(f"{copy.name}.partial-{secrets.token_hex(4)}")
                    digest = self._copy_cold(source, partial)
            fail_point("snapshot.copied")
            partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room for its journal
        return SavedFolder(original=str(original), copy_name=copy.name, sha256=digest)

    def _copy_cold(self, source: Folder, partial: Path) -> str:
        copy_out(source, partial, self._home)
        os.sync()
        return hash_tree(partial)[0]

    def _refresh(self, source: Folder, copy: Path, warm: _Warm) -> str:
        """The digest is `hash_tree`'s of the whole copy; only what has changed is read for it."""
        now = take_inventory(source)
        todo = compare(warm.trusted, now)
        with Folder.own(copy) as folder:
            arrived = take_inventory(folder)
        for path in [path for path in arrived if path not in warm.trusted] + todo.gone:
            _remove(copy / path)
        for parent, names in _by_parent([*todo.new_folders, *todo.stale]).items():
            for name in names:
                if str(parent / name) in warm.trusted:
                    _remove(copy / parent / name)
            with (
                source.folder(str(parent)) as holder,
                Folder.own(copy) as top,
                top.folder(str(parent)) as target,
            ):
                copy_names(holder, names, target, self._home)
        for path in sorted(todo.retouched, reverse=True):
            _touch(copy / path, now[path])
        fresh = set(todo.stale)
        lines = {
            path: line
            for path, line in warm.lines.items()
            if now.get(path) == warm.trusted[path] and path not in fresh
        }
        changed = [p for p, stamp in now.items() if p not in lines and not stamp.is_folder]
        lines.update(_lines(copy, changed))
        _sync(copy, changed)
        lines.pop(SEAL, None)
        return digest_of(lines)

    def _places(self, upgrade: str, folders: list[Path]) -> list[tuple[Path, Path]]:
        """`(copy, original)` of each folder."""
        root = self.bookmarks.folder(upgrade)
        return [
            (root / f"{number}-{original.name.lstrip('.')}", original)
            for number, original in enumerate(folders)
        ]

    def prepare(self, bookmark: Bookmark) -> None:
        """What of a restore can be done while a gateway serves: a checked copy beside each folder."""
        for saved in bookmark.folders:
            if saved.sha256 is None or self._done(bookmark, saved).exists():
                continue
            original = Path(saved.original)
            with Folder.guarded(original.parent) as parent:
                for name in (original.name, failed_name(original, bookmark.upgrade)):
                    parent.has_folder(name)  # a link there is refused before anything is made
                with parent.private_folder(_room_of(original)) as ours:
                    if not ours.has_folder(CHECKED):
                        self._prepare(self._copy_of(bookmark, saved), ours, saved.sha256)

    def restore(self, bookmark: Bookmark) -> list[str]:
        """Put every folder back as it was; what the upgrade wrote is kept beside it for people.

        Can be called again after a crash at any point. Returns where the failed state was kept. Raises
        UntrustedError where a link stands under one of the names, before that folder is touched.
        """
        self.prepare(bookmark)
        kept = []
        for saved in bookmark.folders:
            done = self._done(bookmark, saved)
            if not done.exists():
                self._restore(bookmark, saved, done)
            original = Path(saved.original)
            with Folder.guarded(original.parent) as parent:
                parent.remove_folder(_room_of(original))
            kept.append(done.read_text())
        return [each for each in kept if each]

    def _restore(self, bookmark: Bookmark, saved: SavedFolder, done: Path) -> None:
        """Writes to `done` where the failed state was kept, if there was one. The copy stands whole in a
        folder of our own beside the original, whose parent may be the gateway's; this is renames."""
        original = Path(saved.original)
        failed, room = failed_name(original, bookmark.upgrade), _room_of(original)
        with Folder.guarded(original.parent) as parent:
            there, set_aside = parent.has_folder(original.name), parent.has_folder(failed)
            with parent.private_folder(room) as ours:
                moved = ours.has_folder(WHOLE) is False and ours.has_folder(CHECKED)
                if there and not moved:
                    failed = f"{failed}-{secrets.token_hex(4)}" if set_aside else failed
                    parent.move(original.name, parent, failed)
                    fail_point("restore.set-aside")
                if ours.has_folder(WHOLE):
                    ours.move(WHOLE, parent, original.name)
                    fail_point("restore.moved")
            parent.sync()
            kept = str(original.with_name(failed)) if parent.has_folder(failed) else ""
            write_durable(done, kept.encode())

    def _prepare(self, copy: Path, room: Folder, sha256: str) -> None:
        """A checked copy under the name `whole`, and only then the sign that it is. Where there is no room
        for it, the bookmark's own copy is taken."""
        if copy.exists():
            room.remove_folder(WHOLE)
            try:
                copy_in(copy, room, WHOLE, self._home)
            except CommandError:
                room.remove_folder(WHOLE)
                with Folder.own(copy.parent) as holder:
                    holder.move(copy.name, room, WHOLE)
        elif not room.has_folder(WHOLE):
            raise UntrustedError(f"the copy {copy} is gone")
        digest, _, _ = hash_tree(Path(WHOLE), dir_fd=room.fd)
        if digest != sha256:
            raise UntrustedError(f"the copy {copy} is not what was saved")
        os.sync()
        fail_point("restore.checked")
        with room.private_folder(CHECKED):
            room.sync()

    def written_since(self, bookmark: Bookmark) -> list[str]:
        """Files that are new or other than in the copies: what a rollback now would take away."""
        found = []
        for saved in bookmark.folders:
            original, copy = Path(saved.original), self._copy_of(bookmark, saved)
            try:
                with Folder.guarded(original) as folder:
                    now = take_inventory(folder)
            except FileNotFoundError:
                continue
            was: Inventory = {}
            if saved.sha256 is not None and copy.is_dir():
                with Folder.own(copy) as folder:
                    was = take_inventory(folder)
            found += [
                str(original / path)
                for path, stamp in now.items()
                if not stamp.is_folder and not (path in was and stamp.is_copied_by(was[path]))
            ]
        return sorted(found)

    def _copy_of(self, bookmark: Bookmark, saved: SavedFolder) -> Path:
        return self.bookmarks.folder(bookmark.upgrade) / saved.copy_name

    def _done(self, bookmark: Bookmark, saved: SavedFolder) -> Path:
        return self.bookmarks.folder(bookmark.upgrade) / f"{saved.copy_name}.restored"


def _room_of(original: Path) -> str:
    """A folder of ours beside it, in which the copy is made whole; there only while a restore goes on."""
    return f"{original.name}.restored"


def _warm_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.warm")


def _bytes(inventory: Inventory) -> int:
    return sum(stamp.size for stamp in inventory.values())


def _lines(root: Path, paths: list[str]) -> dict[str, bytes]:
    found = {}
    for parent, names in _by_parent(paths).items():
        with Folder.own(root) as top, top.folder(str(parent)) as holder:
            for name in names:
                path = str(parent / name)
                found[path] = line_of(name, holder.fd, path)
    return found


def _by_parent(paths: list[str]) -> dict[PurePath, list[str]]:
    grouped: dict[PurePath, list[str]] = {}
    for path in map(PurePath, paths):
        grouped.setdefault(path.parent, []).append(path.name)
    return grouped


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _touch(folder: Path, stamp: Stamp) -> None:
    if os.geteuid() == 0:
        os.chown(folder, stamp.uid, stamp.gid)
    folder.chmod(stat.S_IMODE(stamp.mode))
    os.utime(folder, ns=(stamp.modified, stamp.modified))


def _sync(root: Path, changed: list[str]) -> None:
    """To the media, like `os.sync`, without waiting for what others have written."""
    for path in map(root.joinpath, changed):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                full_sync(file.fileno())
    for folder in {root, *(root.joinpath(path).parent for path in changed)}:
        sync_directory(folder)
