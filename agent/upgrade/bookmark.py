"""What undoes an upgrade: the previous tree, and a full cold copy of state and workspaces.

`openclaw backup` is no way back (OPENCLAW.md, law 2); the copy is. It is made with the gateway
stopped, hashed, and moved into place by rename, so that a half copy is never taken for a whole one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from agent.copying import copy_in, copy_out
from agent.openclaw.tree import hash_tree
from shared.durable import private_directory, sync_directory, write_durable
from shared.errors import BadInputError, UntrustedError
from shared.untrusted import Folder
from shared.wire import Wire

WHOLE, CHECKED = "whole", "checked"
"""In `<folder>.restored` while a restore goes on: the copy, and the sign that it was checked. The sign
without the copy means that the copy has been moved to its place."""


class SavedFolder(Wire):
    """One copied folder. `copy_name` is its name inside the bookmark; `sha256` is None when the
    original did not exist, and a rollback then removes what the upgrade made."""

    original: str
    copy_name: str
    sha256: str | None


class Bookmark(Wire):
    upgrade: str
    previous: str | None
    """Release id that `current` pointed at; None before the first install."""
    previous_version: str | None
    created: float
    weight: int
    readiness: dict[str, Any]
    installed: str
    """What `npm ls --depth=0` said of the previous tree."""
    folders: list[SavedFolder] = []


class Bookmarks:
    """Blocking; steps call it in a thread. One folder per upgrade below `<home>/bookmarks`."""

    def __init__(self, root: Path, home: str) -> None:
        self._root, self._home = root, home

    def folder(self, upgrade: str) -> Path:
        return self._root / upgrade

    def write(self, bookmark: Bookmark) -> None:
        folder = private_directory(self.folder(bookmark.upgrade))
        write_durable(folder / "bookmark.json", bookmark.canonical())

    def read(self, upgrade: str) -> Bookmark | None:
        try:
            return Bookmark.from_bytes((self.folder(upgrade) / "bookmark.json").read_bytes())
        except (FileNotFoundError, BadInputError):
            return None

    def newest(self) -> Bookmark | None:
        """The bookmark that was opened last; None when there is none that can be read."""
        return max(self.all(), key=lambda each: each.created, default=None)

    def all(self) -> list[Bookmark]:
        """Those that can be read."""
        found = [self.read(folder.name) for folder in self._root.iterdir() if folder.is_dir()]
        return [each for each in found if each is not None]

    def snapshot(self, upgrade: str, folders: list[Path]) -> list[SavedFolder]:
        """Copy and hash. Calling it again after a crash starts the unfinished copies anew.

        Raises UntrustedError for a folder that is a link or lies behind one that the gateway could have
        planted: the copy would be of something else (fault 31).
        """
        for leftover in self.folder(upgrade).glob("*.partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        saved = []
        for number, original in enumerate(folders):
            name = f"{number}-{original.name.lstrip('.')}"
            saved.append(self._save(self.folder(upgrade) / name, original, name))
        os.sync()
        sync_directory(self.folder(upgrade))
        return saved

    def _save(self, copy: Path, original: Path, name: str) -> SavedFolder:
        shutil.rmtree(copy, ignore_errors=True)
        try:
            source = Folder.guarded(original)
        except FileNotFoundError:
            return SavedFolder(original=str(original), copy_name=name, sha256=None)
        partial = copy.with_name(f"{copy.name}.partial-{secrets.token_hex(4)}")
        try:
            with source:
                copy_out(source, partial, self._home)
            digest, _, _ = hash_tree(partial)
            partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room for its journal
        return SavedFolder(original=str(original), copy_name=name, sha256=digest)

    def restore(self, bookmark: Bookmark) -> list[str]:
        """Put every folder back as it was; what the upgrade wrote is kept beside it for people.

        Can be called again after a crash at any point. Returns where the failed state was kept. Raises
        UntrustedError where a link stands under one of the names, before that folder is touched.
        """
        kept = []
        for saved in bookmark.folders:
            done = self.folder(bookmark.upgrade) / f"{saved.copy_name}.restored"
            if not done.exists():
                self._restore(bookmark.upgrade, saved, done)
            kept.append(done.read_text())
        return [each for each in kept if each]

    def _restore(self, upgrade: str, saved: SavedFolder, done: Path) -> None:
        """Writes to `done` where the failed state was kept, if there was one. The copy is made whole in a
        folder of our own beside the original, whose parent may be the gateway's; the rest is renames."""
        original = Path(saved.original)
        failed, room = f"{original.name}.failed-{upgrade}", f"{original.name}.restored"
        with Folder.guarded(original.parent) as parent:
            there, set_aside = parent.has_folder(original.name), parent.has_folder(failed)
            with parent.private_folder(room) as ours:
                moved = ours.has_folder(WHOLE) is False and ours.has_folder(CHECKED)
                if saved.sha256 is not None and not ours.has_folder(CHECKED):
                    self._prepare(self.folder(upgrade) / saved.copy_name, ours, saved.sha256)
                if there and not moved:
                    failed = f"{failed}-{secrets.token_hex(4)}" if set_aside else failed
                    parent.move(original.name, parent, failed)
                if ours.has_folder(WHOLE):
                    ours.move(WHOLE, parent, original.name)
            parent.sync()
            kept = str(original.with_name(failed)) if parent.has_folder(failed) else ""
            write_durable(done, kept.encode())
            parent.remove_folder(room)

    def _prepare(self, copy: Path, room: Folder, sha256: str) -> None:
        """A checked copy under the name `whole`, and only then the sign that it is."""
        if not copy.exists():
            raise UntrustedError(f"the copy {copy} is gone")
        room.remove_folder(WHOLE)
        copy_in(copy, room, WHOLE, self._home)
        digest, _, _ = hash_tree(Path(WHOLE), dir_fd=room.fd)
        if digest != sha256:
            raise UntrustedError(f"the copy {copy} is not what was saved")
        os.sync()
        with room.private_folder(CHECKED):
            room.sync()
