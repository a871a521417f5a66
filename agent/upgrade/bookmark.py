"""What undoes an upgrade: the previous tree, and a full cold copy of state and workspaces.

`openclaw backup` is no way back (OPENCLAW.md, law 2); the copy is. It is made with the gateway
stopped, hashed, and moved into place by rename, so that a half copy is never taken for a whole one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.openclaw.tree import hash_tree
from shared.command import CHILD_OF
from shared.durable import private_directory, sync_directory, write_durable
from shared.errors import BadInputError, CommandError, UntrustedError
from shared.wire import Wire

COPY_TIMEOUT_S = 3600.0


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
        found = [self.read(folder.name) for folder in self._root.iterdir() if folder.is_dir()]
        return max((each for each in found if each), key=lambda each: each.created, default=None)

    def snapshot(self, upgrade: str, folders: list[Path]) -> list[SavedFolder]:
        """Copy and hash. Calling it again after a crash starts the unfinished copies anew.

        Raises UntrustedError for a folder that is a link: the copy would be a link too.
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
        if original.is_symlink():
            raise UntrustedError(f"{original} is a link; a copy of it would save nothing")
        shutil.rmtree(copy, ignore_errors=True)
        if not original.exists():
            return SavedFolder(original=str(original), copy_name=name, sha256=None)
        partial = copy.with_name(f"{copy.name}.partial-{secrets.token_hex(4)}")
        copy_tree(original, partial, self._home)
        digest, _, _ = hash_tree(partial)
        partial.rename(copy)
        return SavedFolder(original=str(original), copy_name=name, sha256=digest)

    def restore(self, bookmark: Bookmark) -> list[str]:
        """Put every folder back as it was; what the upgrade wrote is kept beside it for people.

        Can be called again after a crash at any point. Returns where the failed state was kept.
        """
        return [
            kept
            for saved in bookmark.folders
            if (kept := self._restore(bookmark.upgrade, saved)) is not None
        ]

    def _restore(self, upgrade: str, saved: SavedFolder) -> str | None:
        """Three names make it repeatable: `.restoring-…` (partial), `.restored` (whole), `.failed-…`."""
        original = Path(saved.original)
        failed = original.with_name(f"{original.name}.failed-{upgrade}")
        whole = original.with_name(f"{original.name}.restored")
        if failed.exists() and original.exists() and not whole.exists():
            return str(failed)
        if saved.sha256 is not None and not whole.exists():
            self._prepare(self.folder(upgrade) / saved.copy_name, whole, saved.sha256)
        if original.exists() and not failed.exists():
            original.rename(failed)
        if whole.exists():
            whole.rename(original)
        sync_directory(original.parent)
        return str(failed) if failed.exists() else None

    def _prepare(self, copy: Path, whole: Path, sha256: str) -> None:
        for leftover in whole.parent.glob(f"{whole.stem}.restoring-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = whole.with_suffix(f".restoring-{secrets.token_hex(4)}")
        if not copy.exists():
            raise UntrustedError(f"the copy {copy} is gone")
        copy_tree(copy, partial, self._home)
        digest, _, _ = hash_tree(partial)
        if digest != sha256:
            raise UntrustedError(f"the copy {copy} is not what was saved")
        os.sync()
        partial.rename(whole)


def copy_tree(source: Path, target: Path, home: str) -> None:
    """A full copy with owners, modes and links; a clone where the file system can (APFS, reflink)."""
    clone = ["-c"] if sys.platform == "darwin" else ["--reflink=auto"]
    argv = ["/bin/cp", *clone, "-pPR", str(source), str(target)]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=COPY_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={CHILD_OF: home},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"copying {source} failed: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CommandError(f"copying {source} failed: {said[-1] if said else done.returncode}")
