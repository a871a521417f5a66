"""npm's global OpenClaw on disk: copied, compared, put back. Everything here is blocking."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

from agent.copying import copy_in, copy_out
from agent.openclaw.installed import Contents, check_installed
from agent.openclaw.tarballs import read_tarball
from agent.openclaw.tree import hash_tree
from shared.archive import file_digests
from shared.canonical import parse_json
from shared.durable import sync_directory, write_durable
from shared.errors import BadInputError, UntrustedError
from shared.failpoint import fail_point
from shared.lock import LockedPackage
from shared.release import CORE
from shared.untrusted import Folder
from shared.wire import Sha256, Wire

COPY, NOTE = "package", "package.json"
CONTENTS = "contents.json"
MAX_CONTENTS = 64 << 20
LEFTOVERS = (".openclaw-update-stage-*", ".openclaw.update-stage-*", ".openclaw.package-backup-*")
OURS = ".openclaw.rollcall-"
PENDING = ".openclaw-lifecycle-pending"
"""In core's tarball, and taken away by its first call: whether it is still there says nothing."""


class PackageNote(Wire):
    """What was copied: `launcher` is where `<prefix>/bin/openclaw` leads, if it is there."""

    sha256: Sha256
    launcher: str | None


class PackageCopy:
    """The installed package in an upgrade's bookmark. The note is written last."""

    def __init__(self, bookmark: Path, prefix: Path, home: str) -> None:
        self._bookmark, self._home = bookmark, home
        self._modules = prefix / "lib" / "node_modules"
        self._launcher = prefix / "bin" / CORE

    def read(self) -> PackageNote | None:
        try:
            return PackageNote.from_bytes((self._bookmark / NOTE).read_bytes())
        except (FileNotFoundError, BadInputError):
            return None

    def make(self) -> None:
        target = self._bookmark / COPY
        shutil.rmtree(target, ignore_errors=True)
        with Folder.guarded(self._modules / CORE) as source:
            copy_out(source, target, self._home)
        sha256, _, _ = hash_tree(target)
        os.sync()
        note = PackageNote(sha256=sha256, launcher=_leads_to(self._launcher))
        write_durable(self._bookmark / NOTE, note.canonical())

    def put_back(self) -> None:
        """By rename, out of a checked copy beside it. Does nothing where the package is as it was.
        Raises UntrustedError when the copy is not what was copied."""
        note = self.read()
        if note is None:
            raise UntrustedError(f"{self._bookmark / NOTE} cannot be read")
        if _hash(self._modules / CORE) != note.sha256:
            self._replace(note)
        if note.launcher is not None and _leads_to(self._launcher) != note.launcher:
            self._launcher.unlink(missing_ok=True)
            self._launcher.symlink_to(note.launcher)

    def _replace(self, note: PackageNote) -> None:
        new, old = f"{OURS}new-{secrets.token_hex(4)}", f"{OURS}old-{secrets.token_hex(4)}"
        with Folder.own(self._modules) as modules:
            copy_in(self._bookmark / COPY, modules, new, self._home)
            sha256, _, _ = hash_tree(Path(new), dir_fd=modules.fd)
            if sha256 != note.sha256:
                modules.remove_folder(new)
                raise UntrustedError(f"{self._bookmark / COPY} is not what was copied")
            fail_point("native.put-back")
            if modules.has_folder(CORE):
                modules.move(CORE, modules, old)
            fail_point("native.moved-away")
            modules.move(new, modules, CORE)
            modules.sync()
            modules.remove_folder(old)


def find_leftovers(modules: Path) -> list[Path]:
    """Of OpenClaw's updater, when it did not end."""
    return sorted(path for pattern in LEFTOVERS for path in modules.glob(pattern))


def remove_leftovers(modules: Path) -> None:
    """The updater's and our own, once what ran before stands in its place."""
    for path in (*find_leftovers(modules), *modules.glob(f"{OURS}*")):
        shutil.rmtree(path, ignore_errors=True)
    sync_directory(modules)


def write_contents(tree: Path, packages: list[LockedPackage]) -> None:
    """The hash of every file in the tarballs, by package, so that the outage need not unpack them."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for package in packages:
        digests = file_digests(read_tarball(tree, str(package.integrity)))
        if package.name == CORE:
            digests.pop(PENDING, None)
        found.setdefault(package.name, {})[package.version] = digests
    path = tree / CONTENTS
    path.write_text(json.dumps(found, sort_keys=True))
    path.chmod(0o644)


def read_contents(tree: Path) -> Contents:
    with Folder.own(tree) as folder:
        value = parse_json(folder.read(CONTENTS, max_bytes=MAX_CONTENTS), max_bytes=MAX_CONTENTS)
    return {
        (name, version): digests
        for name, versions in dict(value).items()
        for version, digests in versions.items()
    }


def check_contents(
    package: Path, contents: Contents | None, wanted: set[tuple[str, str]]
) -> str | None:
    """Why the installed package is not what the lock says; None when it is. Without `contents` only
    names and versions are compared."""
    try:
        if contents is not None:
            check_installed(package.parent, contents, only=CORE)
        return _strange_version(package, wanted)
    except (UntrustedError, OSError) as error:
        return str(error)


def _strange_version(package: Path, wanted: set[tuple[str, str]]) -> str | None:
    for manifest in (package / "package.json", *_manifests(package / "node_modules")):
        try:
            about = parse_json(manifest.read_bytes(), max_bytes=4 << 20, max_depth=64)
        except (OSError, BadInputError) as error:
            return f"{manifest} cannot be read: {error}"
        key = (about.get("name"), about.get("version")) if isinstance(about, dict) else None
        if key not in wanted:
            return f"{manifest.parent} is {key and key[1]}, which is not in openclaw.lock"
    return None


def _manifests(modules: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in ("[!.@]*/package.json", "@*/*/package.json"):
        found += modules.glob(pattern)
    return sorted(found)


def _hash(package: Path) -> str | None:
    try:
        return hash_tree(package)[0]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _leads_to(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:
        return None
