"""Signed releases, fetched once and kept. Whoever hands them over, only an operator's key counts."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from agent.coordinator import Coordinator
from shared.durable import write_durable
from shared.errors import RollcallError, UntrustedError
from shared.fleet import FleetDocument
from shared.release import MAX_ARTIFACT_BYTES, MAX_LOCK_BYTES, Release, open_release


class Releases:
    """Implements ReleaseSource over the coordinator, with the envelopes cached in `folder`."""

    def __init__(self, folder: Path, fleet: FleetDocument, coordinator: Coordinator) -> None:
        self._folder, self._fleet, self._coordinator = folder, fleet, coordinator
        self._known: dict[str, Release] = {}

    async def release(self, release: str) -> Release:
        """Raises UntrustedError when it is not signed, or is not the release that was asked for."""
        if release not in self._known:
            self._known[release] = await self._load(release)
        return self._known[release]

    async def _load(self, release: str) -> Release:
        path = self._folder / f"{release}.dsse"
        kept = await asyncio.to_thread(_read, path)
        if kept is not None:
            try:
                return self._open(kept, release)
            except RollcallError:
                pass  # a damaged copy is fetched anew
        raw = await self._coordinator.get(f"/v1/releases/{release}/envelope")
        found = self._open(raw, release)
        await asyncio.to_thread(write_durable, path, raw)
        return found

    def _open(self, raw: bytes, release: str) -> Release:
        found = open_release(raw, self._fleet)
        if found.id != release:
            raise UntrustedError(f"asked for release {release[:12]}, was handed {found.id[:12]}")
        return found

    async def lock(self, release: Release) -> bytes:
        return await self._blob(release.manifest.lock_sha256, MAX_LOCK_BYTES)

    async def artifact(self, release: Release, sha256: str) -> bytes:
        if sha256 not in {artifact.sha256 for artifact in release.manifest.artifacts}:
            raise UntrustedError(f"release {release.label} has no artifact {sha256[:12]}")
        return await self._blob(sha256, MAX_ARTIFACT_BYTES)

    async def _blob(self, sha256: str, limit: int) -> bytes:
        raw = await self._coordinator.get(f"/v1/blobs/{sha256}", limit=limit)
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise UntrustedError(f"blob {sha256[:12]} is not what its hash says")
        return raw


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
