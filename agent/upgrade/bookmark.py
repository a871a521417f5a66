"""What undoes an upgrade: the previous tree, a full cold copy of state and workspaces, the traffic weight,
and what was known of the node before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.durable import private_directory, write_durable
from shared.errors import BadInputError, NotFoundError
from shared.untrusted import Folder
from shared.wire import Wire

FILE = "bookmark.json"
MAX_BYTES = 4 << 20
"""A readiness document and npm's listing are in it."""
DAY_S = 86400.0


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
    lock_sha256: str | None = None
    tree_sha256: str | None = None
    plugins: dict[str, str] = {}
    folders: list[SavedFolder] = []
    """Empty until the snapshot is whole: before that neither link nor state was changed."""


@dataclass(frozen=True)
class Keeping:
    """How many bookmarks stay, and for how long; what a rollback may still need always stays."""

    count: int
    days: float


def which_go(
    bookmarks: list[Bookmark], keeping: Keeping, now: float, *, needed: set[str], good: str | None
) -> list[str]:
    """Upgrades whose bookmarks may go; one that holds no copy is worth nothing once its upgrade has ended.

    `needed` are those of the upgrade that goes on and of the one that `rollback` would undo; one that leads
    to the last known good release `good` stays as well.
    """
    newest = sorted(bookmarks, key=lambda each: each.created, reverse=True)
    return [
        each.upgrade
        for place, each in enumerate(newest)
        if each.upgrade not in needed
        and (good is None or each.previous != good)
        and (
            not each.folders or place >= keeping.count or now - each.created > keeping.days * DAY_S
        )
    ]


class Bookmarks:
    """Blocking; steps call it in a thread. One folder per upgrade below `<home>/bookmarks`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, upgrade: str) -> Path:
        return self._root / upgrade

    def write(self, bookmark: Bookmark) -> None:
        folder = private_directory(self.folder(bookmark.upgrade))
        write_durable(folder / FILE, bookmark.canonical())

    def read(self, upgrade: str) -> Bookmark | None:
        try:
            raw = (self.folder(upgrade) / FILE).read_bytes()
            return Bookmark.from_bytes(raw, max_bytes=MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError, BadInputError):
            return None

    def all(self) -> list[Bookmark]:
        """Those that can be read, the oldest first."""
        if not self._root.is_dir():
            return []
        found = [self.read(folder.name) for folder in self._root.iterdir() if folder.is_dir()]
        return sorted((each for each in found if each), key=lambda each: each.created)

    def unreadable(self) -> list[str]:
        """Folders in which an upgrade did not get as far as a bookmark, or whose bookmark is damaged."""
        if not self._root.is_dir():
            return []
        return [each.name for each in self._root.iterdir() if self.read(each.name) is None]

    def newest(self) -> Bookmark | None:
        """The bookmark that was opened last; None when there is none that can be read."""
        return next(iter(reversed(self.all())), None)

    def get(self, upgrade: str) -> Bookmark:
        """Raises NotFoundError, which names those that there are."""
        found = self.read(upgrade) if Path(upgrade).name == upgrade else None
        if found is None:
            known = ", ".join(each.upgrade for each in self.all()) or "none"
            raise NotFoundError(f"no bookmark {upgrade!r}", remedy=f"there are: {known}")
        return found

    def size(self, upgrade: str) -> int:
        """Bytes on disk, as files count; clones share them."""
        files = (path for path in self.folder(upgrade).rglob("*") if not path.is_symlink())
        return sum(path.stat().st_size for path in files if path.is_file())

    def remove(self, upgrade: str) -> None:
        """With the failed state that a rollback to it has kept beside each folder."""
        bookmark = self.read(upgrade)
        for saved in [] if bookmark is None else bookmark.folders:
            self._remove_failed(Path(saved.original), upgrade)
        shutil.rmtree(self.folder(upgrade), ignore_errors=True)

    def _remove_failed(self, original: Path, upgrade: str) -> None:
        kept = failed_name(original, upgrade)
        try:
            parent = Folder.guarded(original.parent)
        except FileNotFoundError:
            return
        with parent:
            for name in [name for name in parent.names() if name.startswith(kept)]:
                parent.remove_folder(name)


def failed_name(original: Path, upgrade: str) -> str:
    """Under which a rollback keeps what the upgrade wrote, beside the original."""
    return f"{original.name}.failed-{upgrade}"
