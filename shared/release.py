"""A release: frozen, named by the hash of its content, and signed as a target of the fleet's TUF
repository. Nothing else says what a node may run."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from shared.canonical import parse_json, sha256_hex
from shared.errors import UntrustedError
from shared.protocol import ProtocolRange
from shared.roster import Role
from shared.versions import OpenClawVersion, VersionText
from shared.wire import Sha256, Wire, unknown_places

CORE = "openclaw"
EVERY_ROLE = "*"
MAX_LOCK_BYTES = 8 << 20
MAX_ARTIFACT_BYTES = 64 << 20

PackageName = Annotated[
    str, StringConstraints(pattern=r"^(@[a-z0-9-][a-z0-9._-]*/)?[a-z0-9-][a-z0-9._-]*$")
]
RELEASE_NAME = r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$"
ReleaseName = Annotated[str, StringConstraints(pattern=RELEASE_NAME)]
Place = tuple[OpenClawVersion, float]
"""Where a release stands among the others: by OpenClaw's version, then by when it was frozen."""
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

    def __str__(self) -> str:
        return f"{self.state}/{self.agent}"


class Floor(Wire):
    """The lowest release that a node may go back to from the one that names it."""

    name: ReleaseName
    openclaw: VersionText
    created: float

    @property
    def place(self) -> Place:
        return OpenClawVersion(self.openclaw), self.created


class Migration(Wire):
    """One call of the new release's own `openclaw`, made on each node after Doctor's migration."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,47}$")]
    words: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@._:/=+-]{1,200}$")]],
        Field(min_length=1, max_length=32),
    ]


class WheelFile(Wire):
    """A dependency of the agent that travels with the release."""

    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\.whl$")]
    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_ARTIFACT_BYTES)]


class AgentBuild(Wire):
    """The version of the agent that goes with a release, and the wheel that it is installed from.

    The wheel carries the lock of its dependencies, so its hash fixes every byte. With `wheels` a node
    takes them from there and asks no index. What is empty is left out: a manifest of before keeps its id.
    """

    version: Annotated[
        str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6}){1,3}([a-z0-9.+-]{0,32})$")
    ]
    file: Annotated[str, StringConstraints(pattern=r"^rollcall-[A-Za-z0-9._+-]{1,120}\.whl$")]
    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_ARTIFACT_BYTES)]
    protocol: Annotated[ProtocolRange | None, Field(exclude_if=operator.not_)] = None
    """What it speaks; None is a build of before ranges."""
    wheels: Annotated[list[WheelFile], Field(max_length=512, exclude_if=operator.not_)] = []

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of all that it takes, by file name."""
        return {self.file: self.sha256, **{each.file: each.sha256 for each in self.wheels}}


class ReleaseManifest(Wire):
    """Content of the TUF target `<name>.release.json`.

    `dependencies` and `lock_sha256` fix every byte that npm installs. `overlay` maps a role, or
    `*` for all, to a JSON Merge Patch (RFC 7396) of openclaw.json in which the string `${release}`
    stands for the staged tree. `allow_scripts` lists the packages whose install scripts may run.
    Without a `floor` no order takes a node back from this release; its own rollback of an upgrade
    that just failed is not an order.
    """

    name: ReleaseName
    openclaw: VersionText
    plugins: dict[PackageName, str] = {}
    dependencies: dict[PackageName, str]
    lock_sha256: Sha256
    artifacts: Annotated[list[Artifact], Field(max_length=64)] = []
    allow_scripts: list[PackageName] = []
    node_engine: Annotated[str, StringConstraints(max_length=200)]
    schema_versions: SchemaVersions = SchemaVersions()
    agent: AgentBuild | None = None
    overlay: dict[str, dict[str, Any]] = {}
    migrations: Annotated[list[Migration], Field(max_length=32)] = []
    floor: Floor | None = None
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


def files_of(manifest: ReleaseManifest) -> list[str]:
    """SHA-256 of every file that travels beside the manifest."""
    found = [manifest.lock_sha256, *(each.sha256 for each in manifest.artifacts)]
    return found + (list(manifest.agent.files.values()) if manifest.agent is not None else [])


_BESIDE_THE_GATEWAY = {"name", "agent", "created", "expires", "floor"}


def same_gateway(a: ReleaseManifest, b: ReleaseManifest) -> bool:
    """Whether a node that runs one needs nothing done to its gateway to run the other: they differ in
    the agent at most, and in what says when and how far a node may move."""
    return _of_the_gateway(a) == _of_the_gateway(b)


def _of_the_gateway(manifest: ReleaseManifest) -> dict[str, Any]:
    """Lists whose order means nothing are sorted; migrations run in theirs."""
    found = manifest.model_dump(mode="json", exclude=_BESIDE_THE_GATEWAY)
    found["artifacts"].sort(key=lambda artifact: str(artifact["sha256"]))
    found["allow_scripts"].sort()
    return found


class Release(Wire):
    """A manifest with its id. Whether operators signed it is what TUF metadata says."""

    id: Sha256
    manifest: ReleaseManifest
    unknown: list[str] = []
    """What operators signed and this reader does not understand, as places in the manifest."""

    @property
    def label(self) -> str:
        return f"{self.manifest.name} ({self.id[:12]})"

    @property
    def place(self) -> Place:
        return OpenClawVersion(self.manifest.openclaw), self.manifest.created


def parse_release(raw: bytes) -> Release:
    value = parse_json(raw)
    manifest = ReleaseManifest.from_value(value)
    unknown = unknown_places(value, manifest.model_dump(mode="json"))
    return Release(id=sha256_hex(raw), manifest=manifest, unknown=unknown)


def other_agent(manifest: ReleaseManifest, running: str) -> AgentBuild | None:
    """The agent that the release goes with, where that is not the one that runs."""
    agent = manifest.agent
    return agent if agent is not None and agent.version != running else None


def check_for_agent(release: Release, running: str) -> None:
    """Raises UntrustedError where the agent of version `running` would do something else than operators
    signed: another agent goes with the release, or it says what this one does not understand."""
    other = other_agent(release.manifest, running)
    if other is not None:
        raise UntrustedError(
            f"release {release.label} goes with agent {other.version}; this is {running}"
        )
    if release.unknown:
        raise UntrustedError(
            f"release {release.label} says {', '.join(release.unknown[:3])}, which agent {running} "
            "does not understand",
            remedy="freeze it with the agent that does: rollcall release create --agent-wheel FILE",
        )


def check_unexpired(release: Release, now: float) -> None:
    if now >= release.manifest.expires:
        raise UntrustedError(
            f"release {release.label} has expired",
            remedy="freeze it anew under another name: rollcall release create",
        )


class Bound(Wire):
    """How far back a node may go: what its newest proven release says, kept on the node by itself, so
    that losing the manifest does not lose the floor."""

    release: Sha256
    label: str
    openclaw: VersionText
    created: float
    floor: Floor | None

    @property
    def place(self) -> Place:
        return OpenClawVersion(self.openclaw), self.created


def bound_of(release: Release) -> Bound:
    manifest = release.manifest
    return Bound(
        release=release.id,
        label=release.label,
        openclaw=manifest.openclaw,
        created=manifest.created,
        floor=manifest.floor,
    )


def check_floor(target: Release, bound: Bound | None) -> None:
    """Raises UntrustedError when `target` is older than the newest release that was good here and
    that release does not name it, or an older one, as its floor (fault 32)."""
    if bound is None or target.id == bound.release or target.place >= bound.place:
        return
    floor = bound.floor
    if floor is None or target.place < floor.place:
        lowest = f"nothing below {floor.name}" if floor is not None else "no way back"
        raise UntrustedError(
            f"release {target.label} is older than {bound.label}, which allows {lowest}",
            remedy="freeze what is wanted as a new release",
        )
