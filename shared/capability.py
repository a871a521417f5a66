"""A capability: a plugin or a skill, frozen and signed as a target of its own of the fleet's TUF repository. It goes
onto nodes beside the release that they run, and never in the place of anything that the release brought."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.canonical import canonical_json, parse_json, sha256_hex
from shared.errors import BadInputError, UntrustedError
from shared.release import Artifact, PackageName
from shared.versions import OpenClawVersion
from shared.wire import NodeName, Sha256, Wire, unknown_places

MAX_ARTIFACTS = 16
MAX_CONFIG_BYTES = 64 << 10
MAX_TARGETS = 1000
CAPABILITY_NAME = r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?"
CAPABILITY_VERSION = r"[0-9](?:[0-9A-Za-z.+-]{0,28}[0-9A-Za-z])?"
CapabilityName = Annotated[str, StringConstraints(pattern=f"^{CAPABILITY_NAME}$")]
CapabilityVersion = Annotated[str, StringConstraints(pattern=f"^{CAPABILITY_VERSION}$")]
LABEL = rf"{CAPABILITY_NAME}@{CAPABILITY_VERSION}"
EntryId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_COMPARATOR = re.compile(r"(>=|<=|>|<|=)([0-9A-Za-z.-]{1,40})")


class CapabilityKind(StrEnum):
    PLUGIN = "plugin"
    SKILL = "skill"


class Smoke(StrEnum):
    """What a smoke test may ask. Fixed verbs: a bundle brings no command."""

    LISTED = "listed"
    """OpenClaw lists it, with the very files that were signed."""
    LOADED = "loaded"
    """The running gateway has loaded it, and no plugin is in error."""
    READY = "ready"
    """The gateway is ready for traffic."""
    DOCTOR = "doctor"
    """OpenClaw's Doctor passes."""


def check_range(text: str) -> str:
    """Comparators that all hold, such as `>=2026.8.1 <2027.1.1`; `*` is any version. Raises BadInputError."""
    for word in [] if text == "*" else text.split():
        match = _COMPARATOR.fullmatch(word)
        if match is None:
            raise BadInputError(
                f"{word!r} is no comparator of versions", remedy="such as: >=2026.8.1 <2027.1.1"
            )
        OpenClawVersion(match[2])
    if not text.split():
        raise BadInputError("the range of versions is empty", remedy="write * for any")
    return text


def _as_value_error(text: str) -> str:
    try:
        return check_range(text)
    except BadInputError as error:
        raise ValueError(error.message) from error


VersionRange = Annotated[str, StringConstraints(max_length=200), AfterValidator(_as_value_error)]


def in_range(version: str, wanted: str) -> bool:
    """Whether OpenClaw `version` is in a range as `check_range` takes it."""
    here = OpenClawVersion(version)
    return wanted == "*" or all(_holds(here, word) for word in wanted.split())


def _holds(here: OpenClawVersion, word: str) -> bool:
    match = _COMPARATOR.fullmatch(word)
    if match is None:
        raise BadInputError(f"{word!r} is no comparator of versions")
    there = OpenClawVersion(match[2])
    return {
        ">=": here >= there,
        "<=": here <= there,
        ">": here > there,
        "<": here < there,
        "=": here == there,
    }[match[1]]


class CapabilityManifest(Wire):
    """Content of the TUF target `<name>-<version>.capability.json`.

    `id` is what OpenClaw calls the plugin or skill, `package` the npm name of a plugin. The first artifact is the
    bundle itself, the others are packages that it depends on. `config` is merged (RFC 7396) into
    `plugins.entries.<id>` and reaches nothing else. `owner` is the node that takes it first.
    """

    name: CapabilityName
    version: CapabilityVersion
    kind: CapabilityKind
    id: EntryId
    package: PackageName | None = None
    artifacts: Annotated[list[Artifact], Field(min_length=1, max_length=MAX_ARTIFACTS)]
    openclaw: VersionRange = "*"
    config: dict[str, Any] = {}
    owner: NodeName
    smoke: Annotated[list[Smoke], Field(min_length=1, max_length=8)]
    created: float
    expires: float

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        plugin = self.kind is CapabilityKind.PLUGIN
        if plugin != (self.package is not None):
            raise ValueError("a plugin names its npm package, and a skill names none")
        if not plugin and (self.config or Smoke.LOADED in self.smoke or len(self.artifacts) > 1):
            raise ValueError("a skill is one artifact, without config, and no gateway loads it")
        if len(canonical_json(self.config)) > MAX_CONFIG_BYTES:
            raise ValueError(f"config is larger than {MAX_CONFIG_BYTES >> 10} KiB")
        return self

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def overlay(self) -> dict[str, Any]:
        """The merge patch of openclaw.json."""
        return {"plugins": {"entries": {self.id: self.config}}} if self.config else {}


class Capability(Wire):
    """A manifest with its id, the SHA-256 of its bytes."""

    id: Sha256
    manifest: CapabilityManifest
    unknown: list[str] = []
    """What operators signed and this reader does not understand, as places in the manifest."""

    @property
    def label(self) -> str:
        return f"{self.manifest.label} ({self.id[:12]})"


def parse_capability(raw: bytes) -> Capability:
    """Raises BadInputError that names the field."""
    value = parse_json(raw)
    manifest = CapabilityManifest.from_value(value)
    unknown = unknown_places(value, manifest.model_dump(mode="json"))
    return Capability(id=sha256_hex(raw), manifest=manifest, unknown=unknown)


def check_installable(capability: Capability, now: float) -> None:
    """Raises UntrustedError for one that has expired, or that says what this reader does not understand."""
    if now >= capability.manifest.expires:
        raise UntrustedError(
            f"capability {capability.label} has expired",
            remedy="sign it anew under another version: rollcall capability create",
        )
    if capability.unknown:
        raise UntrustedError(
            f"capability {capability.label} says {', '.join(capability.unknown[:3])}, which this version of "
            "Rollcall does not understand",
            remedy="upgrade Rollcall here first",
        )


class Stage(StrEnum):
    """What a node does for an order to install, in order; the words of its updates begin with them."""

    INSTALL = "install stage"
    WIRE = "wire stage"
    SMOKE = "smoke test"


class StageReport(Wire):
    stage: Stage
    ok: bool
    reason: Annotated[str, Field(max_length=2000)] = ""
    seconds: float = 0.0
    evidence: dict[str, Any] = {}


class CapabilityReport(Wire):
    """The result of an order about a capability, as its node hands it in. `undone` says of a failure that the node
    is again as it was before."""

    node: NodeName
    capability: Sha256
    label: Annotated[str, StringConstraints(max_length=100)]
    stages: Annotated[list[StageReport], Field(max_length=8)] = []
    undone: bool = False
    found: bool = True
    """Of a removal: whether it was there."""


class Gate(StrEnum):
    G0 = "G0"
    G1 = "G1"
    G2 = "G2"
    G3 = "G3"
    G4 = "G4"
    G5 = "G5"
    G6 = "G6"
    G7 = "G7"
    G8 = "G8"
    G9 = "G9"
    U0 = "U0"
    U1 = "U1"
    U2 = "U2"
    U3 = "U3"
    U4 = "U4"


GATE_NAMES = {
    Gate.G0: "authz",
    Gate.G1: "schema",
    Gate.G2: "provenance",
    Gate.G3: "owner liveness",
    Gate.G4: Stage.INSTALL.value,
    Gate.G5: Stage.WIRE.value,
    Gate.G6: Stage.SMOKE.value,
    Gate.G7: "rollout",
    Gate.G8: "index activate",
    Gate.G9: "postcheck",
    Gate.U0: "authz",
    Gate.U1: "disable routing",
    Gate.U2: "unwire",
    Gate.U3: "archive",
    Gate.U4: "emit",
}
PUBLISH = tuple(gate for gate in Gate if gate.startswith("G"))
UNPUBLISH = tuple(gate for gate in Gate if gate.startswith("U"))


class GateState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


class GateView(Wire):
    """`since` is when it came into its state. `reason` is what it found, or what it waits for."""

    gate: Gate
    name: str
    state: GateState = GateState.WAITING
    reason: Annotated[str, Field(max_length=2000)] = ""
    since: float | None = None


class Verb(StrEnum):
    PUBLISH = "publish"
    UNPUBLISH = "unpublish"


class RunState(StrEnum):
    RUNNING = "running"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


OPEN_RUNS = frozenset({RunState.RUNNING, RunState.ROLLING_BACK})


class NodeStep(StrEnum):
    """What a run wants of a node, and what became of it."""

    WAITING = "waiting"
    ORDERED = "ordered"
    DONE = "done"
    FAILED = "failed"
    RETURNING = "returning"
    """On its way back to what it had before the run."""
    RETURNED = "returned"
    STUCK = "stuck"
    """The way back failed too."""


class RunNode(Wire):
    """`order` installs or, in an unpublish, removes; `way_back` undoes that."""

    node: NodeName
    step: NodeStep = NodeStep.WAITING
    order: str | None = None
    way_back: str | None = None
    reason: Annotated[str, Field(max_length=2000)] = ""


class CapabilityRun(Wire):
    """One publish or unpublish. `previous` is what was active before on `previous_nodes`, which go back to it."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    verb: Verb
    capability: Sha256
    name: CapabilityName
    version: CapabilityVersion
    owner: NodeName
    previous: Sha256 | None = None
    previous_label: str = ""
    previous_nodes: list[NodeName] = []
    everywhere: bool = False
    """It is for all nodes, also for those that join later."""
    state: RunState = RunState.RUNNING
    reason: Annotated[str, Field(max_length=2000)] = ""
    by: Annotated[str, StringConstraints(max_length=64)]
    role: str
    note: Annotated[str, Field(max_length=2000)] = ""
    """Why, as the operator said."""
    created: float
    since: float
    revision: int = 1
    gates: list[GateView]
    nodes: Annotated[list[RunNode], Field(max_length=MAX_TARGETS)] = []

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


class IndexState(StrEnum):
    SIGNED = "signed"
    """Operators signed it; it was not published, or that failed."""
    ACTIVE = "active"
    DISABLED = "disabled"
    """It is being unpublished: nobody new is given it."""
    ARCHIVED = "archived"
    WITHDRAWN = "withdrawn"
    """Operators sign for it no more, and it was never unpublished: its nodes have it still."""


class IndexEntry(Wire):
    """One name in the index: which version of it is in use, and where."""

    name: CapabilityName
    version: CapabilityVersion
    capability: Sha256
    state: IndexState
    nodes: list[NodeName] = []
    everywhere: bool = False
    since: float
    by: str
    run: str


class CapabilityView(Wire):
    """One version of a capability. `manifest` is absent for one that operators sign for no more."""

    id: Sha256
    name: CapabilityName
    version: CapabilityVersion
    state: IndexState
    nodes: list[NodeName] = []
    missing: list[NodeName] = []
    """Live nodes that have joined since it was published for all: publishing it again brings it there."""
    since: float | None = None
    by: str = ""
    manifest: CapabilityManifest | None = None


class CapabilityList(Wire):
    capabilities: list[CapabilityView]


class CapabilityDetail(Wire):
    """Every version of one name, and its latest runs, the newest first."""

    name: CapabilityName
    versions: list[CapabilityView]
    runs: list[CapabilityRun]


class PublishRequest(Wire):
    """`capability` is a name, `name@version`, or the id, whole or its first 8 characters at least. `nodes` are the
    targets besides the owner; all live nodes when empty."""

    capability: Annotated[
        str, StringConstraints(pattern=rf"^({LABEL}|{CAPABILITY_NAME}|[0-9a-f]{{8,64}})$")
    ]
    nodes: Annotated[list[NodeName], Field(max_length=MAX_TARGETS)] = []
    reason: Annotated[str, Field(max_length=2000)] = ""
    dry_run: bool = False


class UnpublishRequest(Wire):
    capability: Annotated[
        str, StringConstraints(pattern=rf"^({LABEL}|{CAPABILITY_NAME}|[0-9a-f]{{8,64}})$")
    ]
    reason: Annotated[str, Field(max_length=2000)] = ""
    dry_run: bool = False
