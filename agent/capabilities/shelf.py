"""What this node keeps of capabilities: the verified files of each, and which of them are installed.

`capabilities/<id>/manifest.json` and `capabilities/<id>/tarballs/…` are written once and checked at each reading;
`capabilities/installed.json` says what Rollcall has put in, and so what it may replace or take out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.openclaw.tarballs import TARBALLS, integrity_of, read_tarball, tarball_name
from shared.archive import Limits, check_archive, read_json_file
from shared.canonical import sha256_hex
from shared.capability import Capability, CapabilityKind, parse_capability
from shared.durable import private_directory, sync_directory, write_durable
from shared.errors import BadInputError, NotFoundError, UntrustedError
from shared.lock import LockedPackage
from shared.wire import Sha256, Wire

MANIFEST, INSTALLED = "manifest.json", "installed.json"
MAX_INSTALLED = 256
MAX_FILE = 4 << 20
LIMITS = Limits(entries=5_000, unpacked=256 << 20)


class Kept(Wire):
    """`id` of the capability, and what OpenClaw calls it."""

    capability: Sha256
    kind: CapabilityKind
    name: str
    """What OpenClaw calls it."""
    package: str | None = None
    label: str
    since: float


class _Installed(Wire):
    kept: Annotated[list[Kept], Field(max_length=MAX_INSTALLED)] = []


class Shelf:
    """Blocking."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "capabilities"

    def put(self, raw: bytes, artifacts: dict[str, bytes]) -> Capability:
        """The manifest's bytes, and each artifact by its SHA-256, which the caller has checked. The manifest is
        written last: with it the set is whole. Raises BadInputError for an archive that no node unpacks."""
        capability = parse_capability(raw)
        place = private_directory(private_directory(self._folder) / capability.id)
        tarballs = private_directory(place / TARBALLS)
        for body in artifacts.values():
            check_archive(body, LIMITS)
            write_durable(tarballs / tarball_name(integrity_of(body)), body)
        write_durable(place / MANIFEST, raw)
        return capability

    def has(self, capability: str) -> bool:
        return (self._folder / capability / MANIFEST).is_file()

    def find(self, capability: str) -> Capability:
        """Raises NotFoundError, and UntrustedError for another file than was put there."""
        try:
            raw = (self._folder / capability / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"capability {capability[:12]} is not kept on this node") from None
        if sha256_hex(raw) != capability:
            raise UntrustedError(f"capability {capability[:12]} was changed on this node's disk")
        return parse_capability(raw)

    def tree(self, capability: Capability) -> Path:
        """The folder whose `tarballs` npm is served from."""
        return self._folder / capability.id

    def bodies(self, capability: Capability) -> list[bytes]:
        """Its artifacts in the manifest's order, each checked against its signed hash."""
        by_hash = {}
        for path in sorted((self.tree(capability) / TARBALLS).iterdir()):
            body = path.read_bytes()
            by_hash[sha256_hex(body)] = body
        missing = [each for each in capability.manifest.artifacts if each.sha256 not in by_hash]
        if missing:
            raise UntrustedError(f"{missing[0].file} of {capability.label} is not what was signed")
        return [by_hash[each.sha256] for each in capability.manifest.artifacts]

    def packages(self, capability: Capability) -> list[LockedPackage]:
        """What npm is to find, as a lock would list it; the bundle itself first."""
        found = []
        for body in self.bodies(capability):
            about, integrity = read_json_file(body), integrity_of(body)
            name, version = about.get("name"), about.get("version")
            if not isinstance(name, str) or not isinstance(version, str):
                raise BadInputError(f"a package of {capability.label} has no name and version")
            read_tarball(self.tree(capability), integrity)
            found.append(
                LockedPackage(
                    path=f"node_modules/{name}",
                    version=version,
                    integrity=integrity,
                    optional=False,
                    bundled=False,
                )
            )
        if found[0].name != capability.manifest.package:
            raise UntrustedError(
                f"{capability.label} names {capability.manifest.package}, its tarball {found[0].name}"
            )
        return found

    def installed(self) -> list[Kept]:
        try:
            raw = (self._folder / INSTALLED).read_bytes()
        except FileNotFoundError:
            return []
        return _Installed.from_bytes(raw, max_bytes=MAX_FILE).kept

    def of(self, kind: CapabilityKind, name: str) -> Kept | None:
        return next(
            (each for each in self.installed() if (each.kind, each.name) == (kind, name)), None
        )

    def note(self, kept: Kept) -> None:
        """Durable when this returns."""
        self._write([*self._without(kept.kind, kept.name), kept])

    def forget(self, kind: CapabilityKind, name: str) -> None:
        self._write(self._without(kind, name))

    def _without(self, kind: CapabilityKind, name: str) -> list[Kept]:
        return [each for each in self.installed() if (each.kind, each.name) != (kind, name)]

    def _write(self, kept: list[Kept]) -> None:
        private_directory(self._folder)
        write_durable(self._folder / INSTALLED, _Installed(kept=kept).canonical())

    def drop(self, capability: str) -> None:
        """The files of one that is not installed any more."""
        if any(each.capability == capability for each in self.installed()):
            return
        shutil.rmtree(self._folder / capability, ignore_errors=True)
        sync_directory(self._folder)
