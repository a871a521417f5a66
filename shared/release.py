"""A release: signed, frozen, named by the hash of its content. Nothing else says what a node may run."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from shared.canonical import sha256_hex
from shared.envelope import RELEASE, open_envelope, seal
from shared.errors import UntrustedError
from shared.fleet import FleetDocument
from shared.keys import SigningKey
from shared.roster import Role
from shared.versions import VersionText
from shared.wire import Sha256, Wire

CORE = "openclaw"
EVERY_ROLE = "*"
MAX_LOCK_BYTES = 8 << 20
MAX_ARTIFACT_BYTES = 64 << 20

PackageName = Annotated[
    str, StringConstraints(pattern=r"^(@[a-z0-9-][a-z0-9._-]*/)?[a-z0-9-][a-z0-9._-]*$")
]
ArtifactFile = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._-]{0,120}\.tgz$")]


class Artifact(Wire):
    """A package that no registry has: its tarball travels with the release."""

    file: ArtifactFile
    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_ARTIFACT_BYTES)]


class SchemaVersions(Wire):
    """OpenClaw's `openclaw.schemaVersions`; releases that declare none have 1/1 (OPENCLAW.md)."""

    state: int = 1
    agent: int = 1


class ReleaseManifest(Wire):
    """Payload of a release envelope.

    `dependencies` and `lock_sha256` fix every byte that npm installs. `overlay` maps a role, or
    `*` for all, to a JSON Merge Patch (RFC 7396) of openclaw.json in which the string `${release}`
    stands for the staged tree. `allow_scripts` lists the packages whose install scripts may run.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")]
    openclaw: VersionText
    plugins: dict[PackageName, str] = {}
    dependencies: dict[PackageName, str]
    lock_sha256: Sha256
    artifacts: Annotated[list[Artifact], Field(max_length=64)] = []
    allow_scripts: list[PackageName] = []
    node_engine: Annotated[str, StringConstraints(max_length=200)]
    schema_versions: SchemaVersions = SchemaVersions()
    overlay: dict[str, dict[str, Any]] = {}
    created: float
    expires: float

    @model_validator(mode="after")
    def _is_whole(self) -> ReleaseManifest:
        if CORE not in self.dependencies:
            raise ValueError(f"dependencies lack {CORE}")
        unknown = set(self.overlay) - {EVERY_ROLE, *(role.value for role in Role)}
        if unknown:
            raise ValueError(f"overlay for an unknown role: {sorted(unknown)[0]}")
        return self

    def overlays_for(self, role: Role) -> list[dict[str, Any]]:
        return [self.overlay[key] for key in (EVERY_ROLE, role.value) if key in self.overlay]

    def package_json(self) -> dict[str, Any]:
        """The project that `npm ci` installs; its lock is `openclaw.lock`."""
        return {
            "name": "rollcall-release",
            "private": True,
            "dependencies": dict(sorted(self.dependencies.items())),
        }


class Release(Wire):
    """A manifest that was verified, with its id and the envelope it came in."""

    id: Sha256
    manifest: ReleaseManifest
    envelope: str

    @property
    def label(self) -> str:
        return f"{self.manifest.name} ({self.id[:12]})"


def sign_release(manifest: ReleaseManifest, key: SigningKey) -> Release:
    payload = manifest.canonical()
    envelope = seal(payload, RELEASE, key)
    return Release(id=sha256_hex(payload), manifest=manifest, envelope=envelope.decode())


def open_release(raw: bytes, fleet: FleetDocument) -> Release:
    """Raises UntrustedError unless one of the fleet's operator keys signed these bytes."""
    opened = open_envelope(raw, RELEASE, fleet.release_keys)
    manifest = ReleaseManifest.from_bytes(opened.payload)
    return Release(id=sha256_hex(opened.payload), manifest=manifest, envelope=raw.decode())


def check_unexpired(release: Release, now: float) -> None:
    if now >= release.manifest.expires:
        raise UntrustedError(
            f"release {release.label} has expired", remedy="sign it anew with a later expiry"
        )
