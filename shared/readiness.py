"""The readiness document and its two hashes: what a load balancer, a peer and a person all read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

import rfc8785
from pydantic import StringConstraints

from shared.canonical import canonical_json, framed_sha256, parse_json, sha256_hex
from shared.errors import BadInputError
from shared.messages import Verdict
from shared.wire import Reason, Sha256, Wire

SCHEMA_VERSION: Final = 1
"""Goes up when an older reader would misunderstand. A field that it may ignore comes without."""
SCHEMA_ID: Final = f"urn:rollcall:readiness:{SCHEMA_VERSION}"
MAX_EVIDENCE: Final = 64 << 10
"""Bytes of one probe's evidence that are kept and hashed. What a probe read beyond them is not evidence."""
MAX_DOCUMENT_BYTES: Final = 4 << 20
"""Of a document with the evidence of forty probes, in base64."""

OF_THE_NODE: Final = frozenset(
    f"core/doctor/{name}"
    for name in (
        "bootstrap-size",  # how much an agent has written into its workspace
        "gateway-daemon",  # whether launchd or systemd starts it, which is the installer's choice
        "gateway-health",  # whether the gateway was up just then
        "heartbeat-cadence-migration",  # until the gateway has started once since an agent was added
        "legacy-state",  # what an older release has left behind
        "memory-search",  # whether an embedding provider can be reached from here
        "node-hosting-preconditions",  # how this host is reached: loopback, LAN, tailscale
        "plugin-registry",  # until `doctor --fix` has written the list of plugins into the state
        "skills-readiness",  # which programs this host has
        "state-integrity",  # modes and owners of this host's folders
        "tools-md-migration",  # which files an agent's workspace has
        "workspace-alias",  # where a workspace lies
    )
)
"""Doctor's checks whose warnings two healthy nodes on one release need not share. Their errors count like all
others: they fail the node anyway."""

Base64Text = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a status, not a password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Check(Wire):
    """One probe's reading after its guard, or what a guard makes of earlier readings. `at` is the wall time of
    the reading, `age_s` its age when the document was built."""

    id: str
    status: CheckStatus
    observed: float | str | None = None
    unit: str | None = None
    limit: float | str | None = None
    at: float | None = None
    age_s: float | None = None
    reason: Reason = ""
    inconclusive: bool = False
    """A guard that has not seen enough to judge: a warning, and a soak goes on until it has."""


class DoctorItem(Wire):
    tenant: str
    check: str
    severity: str


class Comparable(Wire):
    """What two healthy nodes on one release have in common, and nothing else (DESIGN.md, 5). A new field here
    changes every hash: nodes with an older agent would call those with a newer one different."""

    release: Sha256 | None
    core_on_disk: str | None
    core_running: str | None
    plugins: dict[str, str]
    lock_sha256: Sha256 | None
    tree_sha256: Sha256 | None
    doctor: list[DoctorItem]
    config_schema: str | None

    @property
    def ready_probe_sha256(self) -> str:
        return ready_probe_sha256(self.model_dump(mode="json"))


class ReadinessDocument(Wire):
    """`at` is when it was built. `status` follows from `checks` without those in `excluded`."""

    schema_version: int = SCHEMA_VERSION
    node: str
    platform: str | None = None
    """Such as `darwin-arm64`. Trees of one release differ between platforms, so this stands outside of what
    is hashed, and says whether two hashes can be equal at all."""
    status: Verdict
    reason: Reason
    at: float
    checks: list[Check]
    excluded: list[str] = []
    """Checks that whoever asked wanted left out of the verdict."""
    comparable: Comparable
    ready_probe_sha256: Sha256
    evidence_sha256: Sha256
    evidence: dict[str, Base64Text] | None = None
    """The bytes that each probe read, where they were asked for."""
    nonce: str | None = None


class SeenReadiness(Wire):
    """What a peer is told that watches: `document` is None where it has the one of this tag already."""

    tag: Annotated[str, StringConstraints(max_length=64)]
    document: ReadinessDocument | None = None


def steady(found: Iterable[DoctorItem]) -> list[DoctorItem]:
    """Of Doctor's findings those that the release decides, each once, in one order. Every error, and the
    warnings that are not about the host, the age of the state or the moment."""
    kept = {
        item
        for item in found
        if item.severity == "error"
        or (item.severity == "warning" and item.check not in OF_THE_NODE)
    }
    return sorted(kept, key=lambda item: (item.tenant, item.check, item.severity))


def verdict(checks: Collection[Check]) -> tuple[Verdict, str]:
    """Red if any check fails, unknown if any is unknown, green when all pass or warn. None at all is unknown."""
    if not checks:
        return Verdict.UNKNOWN, "there is no check"
    for status, outcome in (
        (CheckStatus.FAIL, Verdict.RED),
        (CheckStatus.UNKNOWN, Verdict.UNKNOWN),
    ):
        bad = [check for check in checks if check.status is status]
        if bad:
            return outcome, "; ".join(f"{check.id}: {check.reason}" for check in bad)[:2000]
    return Verdict.GREEN, ""


def without(document: ReadinessDocument, excluded: Collection[str]) -> ReadinessDocument:
    """The same checks, and the verdict that all but these lead to. Raises BadInputError for an id that no check
    has: a slip of the pen must not look like a check that was left out."""
    known = [check.id for check in document.checks]
    for name in excluded:
        if name not in known:
            raise BadInputError(
                f"no check is called {name[:40]!r}", remedy=f"one of {_list(known)}"
            )
    status, reason = verdict([each for each in document.checks if each.id not in excluded])
    changed = {"status": status, "reason": reason, "excluded": sorted(set(excluded))}
    return document.model_copy(update=changed)


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def ready_probe_sha256(comparable: Any) -> str:
    """Over the JSON value of the comparable part, as RFC 8785 writes it. Of a newer writer's, too, with fields
    that this reader does not know. Raises BadInputError for a number that JSON readers do not agree on."""
    try:
        return sha256_hex(canonical_json(comparable))
    except rfc8785.CanonicalizationError as error:
        raise BadInputError(f"the comparable part cannot be hashed: {error}") from error


def evidence_sha256(parts: Mapping[str, bytes]) -> str:
    """Over the raw bytes of every probe, framed, in the order of their ids (seed 000, framed)."""
    return framed_sha256(piece for name in sorted(parts) for piece in (name.encode(), parts[name]))


def encode_evidence(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(raw).decode() for name, raw in parts.items()}


def decode_evidence(parts: Mapping[str, str]) -> dict[str, bytes]:
    """Raises BadInputError that names the probe."""
    found = {}
    for name, text in parts.items():
        try:
            found[name] = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise BadInputError(f"evidence.{name}: not base64 ({error})") from error
    return found


def read_document(raw: bytes) -> tuple[dict[str, Any], ReadinessDocument]:
    """The value as it stands there, and what this version makes of it.

    Raises BadInputError for bytes that are no document, and for one that is written in a way that came later.
    """
    value = parse_json(raw, max_bytes=MAX_DOCUMENT_BYTES)
    if not isinstance(value, dict):
        raise BadInputError("a readiness document is a JSON object, and this is none")
    version = value.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int | float) and version > SCHEMA_VERSION:
        raise BadInputError(
            f"it has schema_version {version}; this command reads up to {SCHEMA_VERSION}",
            remedy="use the rollcall of the node that wrote it",
        )
    return value, ReadinessDocument.from_value(value)


def document_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the document. Fields with a default may be absent: an older agent did not write
    them; fields that it does not name are a newer agent's."""
    schema = ReadinessDocument.model_json_schema(mode="validation")
    schema["properties"]["schema_version"] = {
        "const": SCHEMA_VERSION,
        "default": SCHEMA_VERSION,
        "title": "Schema Version",
        "type": "integer",
    }
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Readiness of a Rollcall node",
    }
    return {**head, **{key: each for key, each in schema.items() if key not in head}}
