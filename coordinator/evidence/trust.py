"""What proves, from the fleet's root on, whose signatures count: root metadata, targets, fleet documents, a release."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.evidence.archive import FLEETS, RELEASES, ROOTS, TARGETS
from coordinator.repository import Repository
from shared.errors import NotFoundError
from shared.fleet import FleetDocument
from shared.metadata import FLEET, read_targets

MAX_TARGETS_READ = 2000
"""Versions that are looked through for an old fleet document."""


def trust_members(
    repository: Repository, releases: Iterable[str], fleet_versions: Iterable[int]
) -> dict[str, bytes]:
    """All roots; the newest targets that list each fleet document and each release that is asked for, and those
    files. What is there no more is left out: the reader says what is missing. Blocking."""
    members = _roots(repository)
    wanted, versions = set(releases), set(fleet_versions)
    last = 0 if repository.targets is None else repository.targets.signed.version
    for version in range(last, max(0, last - MAX_TARGETS_READ), -1):
        newest = version == last
        if not newest and not wanted and not versions:
            break
        try:
            raw = repository.read(f"{version}.targets.json")
        except NotFoundError:
            continue
        found = _listed(repository, raw, wanted, versions, always=newest)
        if found:
            members |= {f"{TARGETS}/{version}.json": raw, **found}
    return members


def _listed(
    repository: Repository, raw: bytes, wanted: set[str], versions: set[int], *, always: bool
) -> dict[str, bytes]:
    """Takes what it finds out of `wanted` and `versions`."""
    found: dict[str, bytes] = {}
    for path, file in read_targets(raw).signed.targets.items():
        sha256 = file.hashes["sha256"]
        if path != FLEET and sha256 not in wanted:
            continue
        content = repository.read(f"targets/{sha256}.{path}")
        if path != FLEET:
            wanted.discard(sha256)
            found[f"{RELEASES}/{sha256}.json"] = content
            continue
        version = FleetDocument.from_bytes(content).version
        if always or version in versions:
            versions.discard(version)
            found[f"{FLEETS}/{sha256}.json"] = content
    return found


def _roots(repository: Repository) -> dict[str, bytes]:
    last = 0 if repository.root is None else repository.root.signed.version
    return {
        f"{ROOTS}/{version}.json": repository.read(f"{version}.root.json")
        for version in range(1, last + 1)
    }
