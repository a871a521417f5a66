"""A folder of packages that somebody else's npm laid down, against the tarballs that were signed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shared.archive import digest_as_npm
from shared.canonical import parse_json
from shared.errors import BadInputError, UntrustedError
from shared.release import CORE
from shared.untrusted import Folder, open_regular

MODULES = "node_modules"
NPM_OWN = {".bin", ".package-lock.json"}
MAX_DEPTH = 40
MAX_MANIFEST = 1 << 20
Contents = dict[tuple[str, str], dict[str, str]]
"""By name and version: SHA-256 of each file by its path in the package."""


def check_installed(modules: Path, contents: Contents, *, only: str | None = None) -> None:
    """Every package in the node_modules folder `modules`, or one of them, and every file in it. Blocking.

    Core may stand among them as a link: that is how OpenClaw lends itself to a plugin. Raises
    UntrustedError that names the first file which is missing, changed, or nobody's.
    """
    with Folder.guarded(modules / only if only else modules) as folder:
        check = _check_package if only else _check_modules
        check(folder, contents, MAX_DEPTH)


def _check_modules(folder: Folder, contents: Contents, depth: int) -> None:
    if depth == 0:
        raise UntrustedError(f"{folder.path} lies too deep")
    for name in sorted(set(folder.names()) - NPM_OWN):
        if name == CORE and _is_link(folder, name):
            continue
        with folder.folder(name) as inside:
            if name.startswith("@"):
                _check_modules(inside, contents, depth - 1)
            else:
                _check_package(inside, contents, depth - 1)


def _check_package(folder: Folder, contents: Contents, depth: int) -> None:
    try:
        about = parse_json(folder.read("package.json", max_bytes=MAX_MANIFEST), max_depth=64)
    except (OSError, BadInputError) as error:
        raise UntrustedError(f"{folder.path} is no package: {error}") from error
    key = (about.get("name"), about.get("version")) if isinstance(about, dict) else None
    if key not in contents:
        raise UntrustedError(f"{folder.path} is not in openclaw.lock")
    left = dict(contents[key])
    _check_files(folder, "", left, contents, depth)
    if left:
        raise UntrustedError(f"{folder.path / min(left)} is missing")


def _check_files(
    folder: Folder, place: str, left: dict[str, str], contents: Contents, depth: int
) -> None:
    """Takes what it finds out of `left`."""
    if depth == 0:
        raise UntrustedError(f"{folder.path} lies too deep")
    for name in sorted(folder.names()):
        path = f"{place}{name}"
        info = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            with folder.folder(name) as inside:
                _check_folder(inside, path, left, contents, depth - 1)
        elif path in left:
            _check_file(folder, name, left.pop(path))
        elif not _is_npms(path, info):
            raise UntrustedError(f"{folder.path / name} is in no tarball of openclaw.lock")


def _check_folder(
    inside: Folder, path: str, left: dict[str, str], contents: Contents, depth: int
) -> None:
    """A package that npm put inside of this one stands for itself; anything else is a part of this one."""
    own = any(each.startswith(f"{path}/") for each in left)
    if not own and _is_packages_place(path):
        _check_package(inside, contents, depth)
    else:
        _check_files(inside, f"{path}/", left, contents, depth)


def _is_packages_place(path: str) -> bool:
    """`…/node_modules/name` or `…/node_modules/@scope/name`."""
    parts = path.split("/")
    if parts[-1] in NPM_OWN or parts[-1].startswith("@"):
        return False
    return parts[-2:-1] == [MODULES] or (parts[-3:-2] == [MODULES] and parts[-2].startswith("@"))


def _is_npms(path: str, info: os.stat_result) -> bool:
    """Links that npm or OpenClaw made in a node_modules folder, and npm's own notes."""
    parts = path.split("/")
    if MODULES not in parts[:-1]:
        return False
    if stat.S_ISLNK(info.st_mode):
        return parts[-1] == CORE or parts[-2] == ".bin"
    return parts[-1] in NPM_OWN


def _check_file(folder: Folder, name: str, sha256: str) -> None:
    path = folder.path / name
    with open_regular(name, folder.fd, path) as file:
        found = digest_as_npm(file)
    if found != sha256:
        raise UntrustedError(f"{path} is not what openclaw.lock fixes")


def _is_link(folder: Folder, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode)
