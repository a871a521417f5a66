"""A staged release on disk: sealed once, checked against its lock and its seal ever after."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from agent.openclaw.sweep import Sweep
from shared.canonical import MAX_JSON_BYTES, parse_json
from shared.durable import write_durable
from shared.errors import BadInputError, UntrustedError
from shared.lock import Lock, parse_lock
from shared.release import CORE
from shared.untrusted import Folder, open_folder
from shared.wire import Sha256, Wire

SEAL = "COMPLETE"
LOCK = "openclaw.lock"
MODULES = "node_modules"
SPACE_FACTOR = 2.5
PLUGINS = "plugins"
MANIFEST = "openclaw.plugin.json"
MAX_READ = 16 << 20
"""Of one file of a tree that is parsed: the lock is the largest."""


class TreeSeal(Wire):
    """Written last, when everything else in the tree is synced: without it there is no tree."""

    release: Sha256
    tree_sha256: Sha256
    files: int
    bytes: int
    plugins: list[str] = []


@dataclass(frozen=True)
class TreeFacts:
    """What readiness compares: names and hashes, read from the tree and not from a memory of it."""

    release: str
    core: str
    plugins: dict[str, str]
    lock_sha256: str
    tree_sha256: str
    config_schema: str


def hash_tree(tree: Path, *, dir_fd: int | None = None) -> tuple[str, int, int]:
    """SHA-256 over every entry (path, kind, executable bit, content or link target), files, bytes.

    Reads everything: call it in a thread. Of a socket or a pipe only the name counts. Links are not
    followed, whoever put them there and when, `tree` itself included; it is looked up below `dir_fd` if
    that is given. Raises UntrustedError where an entry turns into another kind under its reader.
    """
    with Sweep() as sweep:
        fd = open_folder(tree, dir_fd, tree)
        try:
            sweep.folder(fd, "", but=SEAL)
        finally:
            os.close(fd)
        return sweep.digest()


def seal_tree(tree: Path, release: str, plugins: list[str]) -> TreeSeal:
    digest, files, size = hash_tree(tree)
    seal = TreeSeal(
        release=release, tree_sha256=digest, files=files, bytes=size, plugins=sorted(plugins)
    )
    write_durable(tree / SEAL, seal.canonical(), mode=0o644)
    return seal


def read_seal(tree: Path) -> TreeSeal | None:
    """None when the tree is not there or was never completed."""
    try:
        return TreeSeal.from_bytes(read_in(tree, SEAL))
    except (FileNotFoundError, NotADirectoryError, BadInputError):
        return None


def room_for_tree(size: int) -> int:
    """Bytes that must be free to stage a tree of `size` bytes: npm's work and the tree (DESIGN.md, 4)."""
    return int(SPACE_FACTOR * size)


def read_in(tree: Path, relative: str) -> bytes:
    """A file of a tree. Raises UntrustedError where a link leads to it."""
    with Folder.own(tree) as folder:
        return folder.read(relative, max_bytes=MAX_READ)


def verify_tree(tree: Path, release: str, lock_sha256: str) -> TreeSeal:
    """Every file against the seal, every package against the lock. Raises UntrustedError."""
    seal = read_seal(tree)
    if seal is None or seal.release != release:
        raise UntrustedError(f"{tree} is not a complete tree of this release")
    found, _, _ = hash_tree(tree)
    if found != seal.tree_sha256:
        raise UntrustedError(
            f"{tree} was changed since it was staged", remedy="remove it; it is then staged anew"
        )
    raw = read_in(tree, LOCK)
    if hashlib.sha256(raw).hexdigest() != lock_sha256:
        raise UntrustedError(f"{tree / LOCK} is not the lock that was signed")
    check_packages(tree, parse_lock(raw))
    return seal


def check_packages(tree: Path, lock: Lock) -> None:
    """On-disk versions equal the lock's. An optional package may be absent: another platform's. What lies
    inside of another package is fixed by that one's integrity, and npm's word for it is a guess."""
    with Folder.own(tree / MODULES) as modules:
        for package in lock.packages:
            version = _package_json(modules, package.path.removeprefix(f"{MODULES}/")).get(
                "version"
            )
            if package.bundled or (version is None and package.optional):
                continue
            if version != package.version:
                raise UntrustedError(
                    f"{package.path} is {version or 'missing'}; openclaw.lock says {package.version}"
                )


def package_field(tree: Path, package: str, field: str) -> str | None:
    """Of the package.json in `<tree>/<package>`; None when it does not say."""
    value = _package_of(tree, package).get(field)
    return value if isinstance(value, str) else None


def core_version(tree: Path) -> str | None:
    """The version of OpenClaw that is on disk; None when there is none."""
    return package_field(tree, f"node_modules/{CORE}", "version")


def _package_json(modules: Folder, package: str) -> dict[str, object]:
    """Of a package that lies below an open folder."""
    try:
        raw = modules.read(f"{package}/package.json", max_bytes=MAX_READ)
        value = parse_json(raw, max_bytes=4 * MAX_JSON_BYTES, max_depth=64)
    except (OSError, BadInputError):
        return {}
    return value if isinstance(value, dict) else {}


def _package_of(tree: Path, package: str) -> dict[str, object]:
    """`node_modules` itself may be a link of the agent's: to where another installer keeps packages."""
    first, _, inside = package.partition("/")
    try:
        with Folder.own(tree / first) as modules:
            return _package_json(modules, inside)
    except OSError:
        return {}


def read_facts(tree: Path) -> TreeFacts:
    """The cheap sweep: seal, lock hash, versions on disk. Raises UntrustedError when they disagree."""
    seal = read_seal(tree)
    if seal is None:
        raise UntrustedError(f"{tree} is not a complete tree")
    raw = read_in(tree, LOCK)
    lock = parse_lock(raw)
    core = core_version(tree)
    if core is None or core != lock.version_of(CORE):
        raise UntrustedError(
            f"on disk {CORE} is {core or 'missing'}; openclaw.lock says {lock.version_of(CORE)}"
        )
    found = {name: _plugin_version(tree, name) for name in seal.plugins}
    wrong = [name for name, version in found.items() if version != lock.version_of(name)]
    if wrong:
        raise UntrustedError(f"plugin {wrong[0]} is not the version in openclaw.lock")
    return TreeFacts(
        release=seal.release,
        core=core,
        plugins={name: version for name, version in found.items() if version},
        lock_sha256=hashlib.sha256(raw).hexdigest(),
        tree_sha256=seal.tree_sha256,
        config_schema=config_schema(tree),
    )


def _plugin_version(tree: Path, name: str) -> str | None:
    """Beside the lock, where the packages themselves are not the agent's to keep."""
    beside = package_field(tree, f"{PLUGINS}/{name}", "version")
    return beside or package_field(tree, f"node_modules/{name}", "version")


def plugin_ids(tree: Path) -> set[str]:
    """What OpenClaw calls the plugins of a tree's release, as far as their packages lie in it. Blocking."""
    seal = read_seal(tree)
    found = set()
    for name in seal.plugins if seal is not None else []:
        for place in (PLUGINS, MODULES):
            with contextlib.suppress(OSError, BadInputError, UntrustedError):
                about = parse_json(read_in(tree, f"{place}/{name}/{MANIFEST}"), max_depth=64)
                if isinstance(about, dict) and isinstance(about.get("id"), str):
                    found.add(about["id"])
    return found


def config_schema(tree: Path) -> str:
    """`state/agent` schema versions as the package declares them; undeclared means 1/1."""
    declared = _package_of(tree, f"{MODULES}/{CORE}").get(CORE)
    versions = declared.get("schemaVersions") if isinstance(declared, dict) else None
    if not isinstance(versions, dict):
        return "1/1"
    return f"{json.dumps(versions.get('state', 1))}/{json.dumps(versions.get('agent', 1))}"
