"""`openclaw.lock`: npm's lockfile, checked for what we rely on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shared.canonical import parse_json
from shared.errors import BadInputError
from shared.release import CORE, MAX_LOCK_BYTES
from shared.wire import Wire


class LockedPackage(Wire):
    """One entry of the lock. `path` is where npm puts it, relative to the tree."""

    path: str
    version: str
    integrity: str | None
    optional: bool
    bundled: bool
    """Its bytes come inside the package above it, and are fixed by that one's integrity."""
    needs: list[str] = []
    """Names of what it depends on, optional and peer dependencies among them."""
    os: list[str] = []
    cpu: list[str] = []
    """Where npm installs it, in Node's words; everywhere when empty."""
    local: str | None = None
    """The artifact of the release that it is, relative to the tree; None for one of the registry."""

    @property
    def name(self) -> str:
        return self.path.rsplit("node_modules/", 1)[-1]


class Lock(Wire):
    packages: list[LockedPackage]

    def version_of(self, name: str) -> str:
        """Version of a package at the top of the tree. Raises BadInputError when it is not there."""
        for package in self.packages:
            if package.path == f"node_modules/{name}":
                return package.version
        raise BadInputError(f"the lock has no {name} at its top")

    def closure(self, names: list[str]) -> list[LockedPackage]:
        """The named packages at the top and all that they need, without core and without what lies
        inside of another package: everything that npm fetches to install them elsewhere."""
        by_path = {package.path: package for package in self.packages}
        found: dict[str, LockedPackage] = {}
        ahead = [f"node_modules/{name}" for name in reversed(names)]
        while ahead:
            path = ahead.pop()
            if path in found or path not in by_path:
                continue
            found[path] = by_path[path]
            ahead += [at for name in found[path].needs if (at := _nearest(by_path, path, name))]
        return [package for package in found.values() if package.integrity is not None]

    def duplicates_of(self, names: list[str]) -> list[str]:
        """Core and plugins must each stand once: two cores are the split that seed 000 warns of."""
        counts = Counter(package.name for package in self.packages)
        return [name for name in names if counts[name] > 1]


def _nearest(by_path: dict[str, LockedPackage], path: str, name: str) -> str | None:
    """Where Node finds `name` from a package: its own node_modules, then each one above."""
    while name != CORE:
        if f"{path}/node_modules/{name}" in by_path:
            return f"{path}/node_modules/{name}"
        if "/node_modules/" not in path:
            return f"node_modules/{name}"
        path = path.rsplit("/node_modules/", 1)[0]
    return None


def parse_lock(raw: bytes) -> Lock:
    """Raises BadInputError for another format, a registry address, or an entry without integrity."""
    value = parse_json(raw, max_bytes=MAX_LOCK_BYTES)
    if not isinstance(value, dict) or value.get("lockfileVersion") != 3:
        raise BadInputError("openclaw.lock is not an npm lockfile of version 3")
    entries = value.get("packages")
    if not isinstance(entries, dict):
        raise BadInputError("openclaw.lock lists no packages")
    lock = Lock(packages=[_package(path, entry) for path, entry in entries.items() if path])
    twice = lock.duplicates_of([CORE])
    if twice:
        raise BadInputError(f"openclaw.lock has {twice[0]} more than once")
    return lock


def _package(path: str, entry: Any) -> LockedPackage:
    if not isinstance(entry, dict) or not path.startswith("node_modules/") or ".." in path:
        raise BadInputError(f"openclaw.lock has a strange entry: {path!r}")
    resolved = str(entry.get("resolved", ""))
    if resolved and not resolved.startswith("file:artifacts/"):
        raise BadInputError(f"openclaw.lock: {path} is fetched from an address")
    bundled = bool(entry.get("inBundle", False))
    integrity = entry.get("integrity")
    if not bundled and not str(integrity or "").startswith("sha512-"):
        raise BadInputError(f"openclaw.lock: {path} has no sha512 integrity")
    return LockedPackage(
        path=path,
        version=str(entry.get("version", "")),
        integrity=integrity,
        optional=bool(entry.get("optional") or entry.get("peer")),
        bundled=bundled,
        needs=_needs(entry),
        os=_words(entry, "os"),
        cpu=_words(entry, "cpu"),
        local=resolved.removeprefix("file:") or None,
    )


def _words(entry: dict[str, Any], key: str) -> list[str]:
    value = entry.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


def _needs(entry: dict[str, Any]) -> list[str]:
    kinds = ("dependencies", "optionalDependencies", "peerDependencies")
    named = [entry[kind] for kind in kinds if isinstance(entry.get(kind), dict)]
    return sorted({name for each in named for name in each})
