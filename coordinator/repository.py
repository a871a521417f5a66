"""The writing side of the fleet's TUF repository: what operators signed, with snapshot and timestamp
over it. The coordinator can put together, refuse and delay; it cannot make a release or a root.

Blocking; the API calls it in a thread. The timestamp is written last: a crash before that leaves the
state that was there, and the accepted offer, which the next start publishes to its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
from cryptography import x509
from pydantic import Field
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from coordinator.home import KeyRing, Keys
from shared.canonical import sha256_hex
from shared.capability import Capability, parse_capability
from shared.clock import Clock
from shared.durable import private_directory, write_durable
from shared.errors import BadInputError, ConflictError, NotFoundError, RollcallError
from shared.fleet import FleetDocument
from shared.metadata import (
    FLEET,
    capability_path,
    check_root,
    check_targets,
    fingerprint,
    is_capability,
    is_release,
    moment,
    name_of,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
    sign,
    to_bytes,
)
from shared.release import Release, files_of, parse_release
from shared.wire import Wire

TIMESTAMP_S = 86400.0
SNAPSHOT_S = 7 * 86400.0
MAX_OFFER_BYTES = 24 << 20
OFFER = "offer.json"
log = structlog.get_logger()

SignedText = Annotated[str, Field(max_length=5_000_000)]


class Offer(Wire):
    """What an operator publishes: new roots in order, new targets, and the target files they name."""

    roots: Annotated[list[SignedText], Field(max_length=64)] = []
    targets: SignedText | None = None
    files: Annotated[dict[str, SignedText], Field(max_length=256)] = {}


class Repository:
    """`has_blob` tells whether a file that a release names has been uploaded."""

    def __init__(
        self, folder: Path, ring: KeyRing, clock: Clock, has_blob: Callable[[str], bool]
    ) -> None:
        self._folder, self._ring, self._clock, self._has_blob = folder, ring, clock, has_blob
        private_directory(folder)
        private_directory(folder / "targets")
        self.root = self._newest_root()
        self.targets = self._published_targets()
        self._learn()
        self._finish()

    def _finish(self) -> None:
        """An offer that was accepted and cut short is published now."""
        raw = self._read(OFFER)
        if raw is None:
            return
        try:
            self.publish(Offer.from_bytes(raw, max_bytes=2 * MAX_OFFER_BYTES))
        except RollcallError as error:
            log.error("a publication that was cut short cannot be finished", reason=str(error))
            (self._folder / OFFER).unlink()

    def _learn(self) -> None:
        """What callers on the event loop ask for, so that they need not wait for a disk."""
        self.fleet: FleetDocument | None = self._fleet_of(self.targets)
        self.releases = self._releases_of(self.targets)
        """What can be a target: signed and not withdrawn, oldest first."""
        self.capabilities = self._capabilities_of(self.targets)
        """What can be published: signed and not withdrawn, oldest first."""
        self._root_to_trust = (
            (0, "") if self.root is None else (self.root.signed.version, fingerprint(self.root))
        )

    def _newest_root(self) -> Metadata[Root] | None:
        found = None
        version = 1
        while (raw := self._read(f"{version}.root.json")) is not None:
            found = read_root(raw)
            version += 1
        return found

    def _published_targets(self) -> Metadata[Targets] | None:
        raw = self._read("timestamp.json")
        if raw is None:
            return None
        snapshot = self._snapshot(read_timestamp(raw).signed.snapshot_meta.version)
        return read_targets(self.read(f"{snapshot.meta['targets.json'].version}.targets.json"))

    def _snapshot(self, version: int) -> Snapshot:
        return read_snapshot(self.read(f"{version}.snapshot.json")).signed

    def _fleet_of(self, targets: Metadata[Targets] | None) -> FleetDocument | None:
        if targets is None:
            return None
        sha256 = targets.signed.targets[FLEET].hashes["sha256"]
        return FleetDocument.from_bytes(self.read(f"targets/{sha256}.{FLEET}"))

    def read(self, path: str) -> bytes:
        """A file as it is served. Raises NotFoundError."""
        raw = self._read(path)
        if raw is None:
            raise NotFoundError(f"there is no {path} in the repository")
        return raw

    def _read(self, path: str) -> bytes | None:
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, path: str, raw: bytes) -> None:
        write_durable(self._folder / path, raw)

    @property
    def number(self) -> int:
        """Goes up with everything that operators publish; agents compare it to see news."""
        if self.root is None or self.targets is None:
            return 0
        return int(self.root.signed.version + self.targets.signed.version)

    def must_fleet(self) -> FleetDocument:
        """Raises ConflictError while no operator has signed this fleet."""
        if self.fleet is None:
            raise ConflictError(
                "no operator has signed this fleet yet",
                remedy="do it once with: rollcall keys init",
            )
        return self.fleet

    def root_to_trust(self) -> tuple[int, str]:
        """Version and fingerprint of the newest root, for a join token."""
        self.must_fleet()
        return self._root_to_trust

    def _releases_of(self, targets: Metadata[Targets] | None) -> list[Release]:
        if targets is None:
            return []
        found = [
            parse_release(self.read(f"targets/{file.hashes['sha256']}.{path}"))
            for path, file in targets.signed.targets.items()
            if is_release(path)
        ]
        return sorted(found, key=lambda release: release.manifest.created)

    def _capabilities_of(self, targets: Metadata[Targets] | None) -> list[Capability]:
        if targets is None:
            return []
        found = [
            parse_capability(self.read(f"targets/{file.hashes['sha256']}.{path}"))
            for path, file in targets.signed.targets.items()
            if is_capability(path)
        ]
        return sorted(found, key=lambda each: each.manifest.created)

    def publish(self, offer: Offer) -> None:
        """Check everything, then write everything.

        Raises UntrustedError for missing signatures, ConflictError when it builds on something that is
        not the newest, BadInputError for files that do not fit.
        """
        if self._is_published(offer):
            return
        roots = self._accept_roots(offer.roots)
        root = roots[-1] if roots else self.root
        if root is None:
            raise ConflictError("there is no root yet", remedy="begin with: rollcall keys init")
        targets = self._accept_targets(offer, root)
        files = self._accept_files(offer, targets.signed)
        fleet = FleetDocument.from_bytes(
            self._target_bytes(FLEET, targets.signed.targets[FLEET].hashes["sha256"], files)
        )
        keys = self._keys_named(root.signed, fleet)
        self._write(OFFER, offer.canonical())
        for path, raw in files.items():
            self._write(f"targets/{sha256_hex(raw)}.{path}", raw)
        for each in roots:
            self._write(f"{each.signed.version}.root.json", to_bytes(each))
        self._write(f"{targets.signed.version}.targets.json", to_bytes(targets))
        self._ring.use(keys)
        self.root, self.targets = root, targets
        self._sign_online(new_snapshot=True)
        (self._folder / OFFER).unlink()
        self._learn()

    def _is_published(self, offer: Offer) -> bool:
        """Whether it was published, and others after it: its sender had no answer."""
        if offer.targets is None or self.targets is None:
            return False
        targets = read_targets(offer.targets.encode())
        known = self._read(f"{targets.signed.version}.targets.json")
        return (
            targets.signed.version < self.targets.signed.version
            and known is not None
            and read_targets(known).signed_bytes == targets.signed_bytes
            and all(self._has_root(read_root(raw.encode())) for raw in offer.roots)
        )

    def _has_root(self, root: Metadata[Root]) -> bool:
        known = self._read(f"{root.signed.version}.root.json")
        return known is not None and read_root(known).signed_bytes == root.signed_bytes

    def _accept_roots(self, raws: list[str]) -> list[Metadata[Root]]:
        before = self.root.signed if self.root is not None else None
        accepted = []
        for raw in raws:
            metadata = read_root(raw.encode())
            if before is not None and metadata.signed.version <= before.version:
                known = read_root(self.read(f"{metadata.signed.version}.root.json"))
                if known.signed_bytes == metadata.signed_bytes:
                    continue
                raise ConflictError(
                    f"root version {metadata.signed.version} is there already with other content"
                )
            check_root(metadata, before)
            accepted.append(metadata)
            before = metadata.signed
        return accepted

    def _accept_targets(self, offer: Offer, root: Metadata[Root]) -> Metadata[Targets]:
        if offer.targets is None:
            if self.targets is None:
                raise BadInputError("a new repository needs targets as well as a root")
            check_targets(self.targets, root.signed)
            return self.targets
        metadata = read_targets(offer.targets.encode())
        check_targets(metadata, root.signed)
        if self.targets is not None and metadata.signed_bytes != self.targets.signed_bytes:
            wanted = self.targets.signed.version + 1
            if metadata.signed.version != wanted:
                raise ConflictError(
                    f"this is targets version {metadata.signed.version}; {wanted} is next",
                    remedy="somebody published in between; draft yours again on top of it: rollcall "
                    "release sign --rebase BUNDLE, or for a root: rollcall keys rotate",
                )
        if metadata.signed.expires.timestamp() <= self._clock.now():
            raise BadInputError("these targets have expired already")
        return metadata

    def _accept_files(self, offer: Offer, targets: Targets) -> dict[str, bytes]:
        files = {path: text.encode() for path, text in offer.files.items()}
        for path in files.keys() - targets.targets.keys():
            raise BadInputError(f"{path} is not among these targets")
        if FLEET not in targets.targets:
            raise BadInputError(f"the targets lack {FLEET}")
        for path, file in targets.targets.items():
            raw = self._target_bytes(path, file.hashes.get("sha256", ""), files)
            if sha256_hex(raw) != file.hashes.get("sha256") or len(raw) != file.length:
                raise BadInputError(f"{path} is not the file that was signed")
            if path != FLEET and path in files:
                self._check_target(path, raw)
        return files

    def _target_bytes(self, path: str, sha256: str, files: dict[str, bytes]) -> bytes:
        if path in files:
            return files[path]
        if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
            raise BadInputError(f"{path} is listed without its SHA-256")
        raw = self._read(f"targets/{sha256}.{path}")
        if raw is None:
            raise BadInputError(f"{path} is listed, and its file is missing")
        return raw

    def _check_target(self, path: str, raw: bytes) -> None:
        if is_capability(path):
            self._check_capability(path, raw)
        elif is_release(path):
            self._check_release(path, raw)
        else:
            raise BadInputError(f"{path} is neither a release nor a capability")

    def _check_capability(self, path: str, raw: bytes) -> None:
        manifest = parse_capability(raw).manifest
        if capability_path(manifest.name, manifest.version) != path:
            raise BadInputError(f"{path} holds a capability that calls itself {manifest.label}")
        for artifact in manifest.artifacts:
            if not self._has_blob(artifact.sha256):
                raise ConflictError(
                    f"file {artifact.sha256[:12]} of capability {manifest.label} is missing",
                    remedy="publish the whole bundle: rollcall release publish BUNDLE",
                )

    def _check_release(self, path: str, raw: bytes) -> None:
        release = parse_release(raw)
        manifest = release.manifest
        if manifest.name != name_of(path):
            raise BadInputError(f"{path} holds a release that calls itself {manifest.name}")
        for sha256 in files_of(manifest):
            if not self._has_blob(sha256):
                raise ConflictError(
                    f"file {sha256[:12]} of release {manifest.name} is missing",
                    remedy="publish the whole bundle: rollcall release publish BUNDLE",
                )

    def _keys_named(self, root: Root, fleet: FleetDocument) -> Keys:
        """The one of our key sets that operators signed. Raises BadInputError for a mixture."""
        online = {*root.roles["snapshot"].keyids, *root.roles["timestamp"].keyids}
        for keys in self._ring.all():
            named = (
                online == {keys.online.public.keyid},
                fleet.roster_key == keys.roster.public,
                fleet.authorities[0].strip() == keys.authority.pem.strip(),
                fleet.fleet == keys.fleet,
            )
            if all(named):
                return keys
        raise BadInputError(
            "root and fleet document do not name this coordinator's keys",
            remedy="fetch them anew and sign: rollcall keys rotate",
        )

    def keep_fresh(self) -> bool:
        """Sign a new timestamp, and snapshot, when half of its time is over. True when it did."""
        if self.targets is None or self.root is None:
            return False
        timestamp = read_timestamp(self.read("timestamp.json")).signed
        snapshot = self._snapshot(timestamp.snapshot_meta.version)
        now = self._clock.now()
        old = snapshot.expires.timestamp() - now < SNAPSHOT_S / 2
        if not old and timestamp.expires.timestamp() - now >= TIMESTAMP_S / 2:
            return False
        self._sign_online(new_snapshot=old)
        return True

    def expired(self) -> str:
        """Which metadata has expired, in words; empty when agents can install by it, and before there is any.
        Blocking. Raises RollcallError for metadata that cannot be read."""
        if self.targets is None or self.root is None:
            return ""
        timestamp = read_timestamp(self.read("timestamp.json")).signed
        now = self._clock.now()
        signed = {"root": self.root.signed, "targets": self.targets.signed, "timestamp": timestamp}
        gone = [name for name, each in signed.items() if each.expires.timestamp() <= now]
        return f"expired: {', '.join(gone)} metadata" if gone else ""

    def _sign_online(self, *, new_snapshot: bool) -> None:
        raw = self._read("timestamp.json")
        before = None if raw is None else read_timestamp(raw).signed
        number = 0 if before is None else before.snapshot_meta.version
        if new_snapshot and self.targets is not None:
            number += 1
            self._write_snapshot(number, self.targets.signed.version)
        timestamp = Metadata(
            Timestamp(
                version=1 if before is None else before.version + 1,
                expires=moment(self._clock.now() + TIMESTAMP_S),
                snapshot_meta=MetaFile(number),
            )
        )
        sign(timestamp, [self._ring.current.online])
        self._write("timestamp.json", to_bytes(timestamp))

    def _write_snapshot(self, number: int, targets_version: int) -> None:
        snapshot = Metadata(
            Snapshot(
                version=number,
                expires=moment(self._clock.now() + SNAPSHOT_S),
                meta={"targets.json": MetaFile(targets_version)},
            )
        )
        sign(snapshot, [self._ring.current.online])
        self._write(f"{number}.snapshot.json", to_bytes(snapshot))

    def expiries(self) -> dict[str, float]:
        """When what operators sign expires, in seconds since the epoch; empty before they have signed."""
        if self.root is None or self.targets is None:
            return {}
        return {
            "root": self.root.signed.expires.timestamp(),
            "targets": self.targets.signed.expires.timestamp(),
        }

    def authority_expiries(self) -> list[float]:
        """When each of the fleet's certificate authorities ends."""
        authorities = [] if self.fleet is None else self.fleet.authorities
        loaded = [x509.load_pem_x509_certificate(pem.encode()) for pem in authorities]
        return [each.not_valid_after_utc.timestamp() for each in loaded]
