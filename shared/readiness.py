"""The readiness document and its two hashes: what a load balancer, a peer and a person all read."""

from __future__ import annotations

from enum import StrEnum

from shared.canonical import canonical_json, framed_sha256, sha256_hex
from shared.messages import Verdict
from shared.wire import Reason, Sha256, Wire


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
    """What two healthy nodes on one release have in common, and nothing else (DESIGN.md, 5)."""

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
        return sha256_hex(canonical_json(self.model_dump(mode="json")))


class ReadinessDocument(Wire):
    schema_version: int = 1
    node: str
    status: Verdict
    reason: Reason
    at: float
    checks: list[Check]
    comparable: Comparable
    ready_probe_sha256: Sha256
    evidence_sha256: Sha256
    nonce: str | None = None


def evidence_sha256(parts: dict[str, bytes]) -> str:
    """Over the raw bytes of every probe, framed, in the order of their ids (seed 000, framed)."""
    return framed_sha256(piece for name in sorted(parts) for piece in (name.encode(), parts[name]))
