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

    def duplicates_of(self, names: list[str]) -> list[str]:
        """Core and plugins must each stand once: two cores are the split that seed 000 warns of."""
        counts = Counter(package.name for package in self.packages)
        return [name for name in names if counts[name] > 1]


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
    )
