"""What `/readyz` says: ready or not, and check by check in two forms that others read already. Pure.

The text is that of Kubernetes' API server; the JSON is `application/health+json`, where nothing stands
between pass and fail: what is unknown is a failure there.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from shared.messages import Verdict
from shared.readiness import Check, CheckStatus, ReadinessDocument, without

HEALTH_TYPE: Final = "application/health+json"
TRAFFIC: Final = "traffic"
_MARKS: Final = {
    CheckStatus.PASS: "[+]{id} ok",
    CheckStatus.WARN: "[+]{id} warns: {reason}",
    CheckStatus.FAIL: "[-]{id} failed: {reason}",
    CheckStatus.UNKNOWN: "[-]{id} unknown: {reason}",
}
_HEALTH: Final = {
    CheckStatus.PASS: "pass",
    CheckStatus.WARN: "warn",
    CheckStatus.FAIL: "fail",
    CheckStatus.UNKNOWN: "fail",
}


@dataclass(frozen=True)
class Ready:
    """`checks` has the node's own drain besides, as `traffic`; `excluded` count for nothing."""

    node: str
    status: Verdict
    reason: str
    checks: list[Check]
    excluded: frozenset[str]

    @property
    def is_ready(self) -> bool:
        return not self.reason and self.status is Verdict.GREEN

    def summary(self) -> dict[str, Any]:
        if self.is_ready:
            return {"ready": True}
        return {"ready": False, "status": self.status, "reason": self.reason}


def judge_ready(document: ReadinessDocument, weight: int, excluded: Collection[str]) -> Ready:
    """Raises BadInputError for an excluded id that no check has."""
    drained = weight <= 0
    traffic = Check(
        id=TRAFFIC,
        status=CheckStatus.FAIL if drained else CheckStatus.PASS,
        observed=float(weight),
        unit="percent",
        reason="drained" if drained else "",
    )
    whole = document.model_copy(update={"checks": [*document.checks, traffic]})
    if not excluded:
        reason = document.reason or ("drained" if drained else "")
        return Ready(document.node, document.status, reason, whole.checks, frozenset())
    seen = without(whole, excluded)
    return Ready(document.node, seen.status, seen.reason, whole.checks, frozenset(excluded))


def wants_json(accept: str) -> bool:
    """Whether an Accept header names JSON of some kind; who says nothing, or `*/*`, is a person with curl."""
    kinds = (each.partition(";")[0].strip().lower() for each in accept.split(","))
    return any(kind in ("application/json", HEALTH_TYPE) for kind in kinds)


def as_text(ready: Ready) -> str:
    lines = []
    for check in ready.checks:
        if check.id in ready.excluded:
            lines.append(f"[+]{check.id} excluded: {check.status}")
        else:
            reason = " ".join(check.reason.split())
            lines.append(_MARKS[check.status].format(id=check.id, reason=reason))
    lines.append(f"readyz check {'passed' if ready.is_ready else 'failed'}")
    return "\n".join(lines) + "\n"


def as_health(ready: Ready) -> dict[str, Any]:
    counted = [check for check in ready.checks if check.id not in ready.excluded]
    warns = any(check.status is CheckStatus.WARN for check in counted)
    return {
        "status": ("warn" if warns else "pass") if ready.is_ready else "fail",
        "serviceId": ready.node,
        "description": "readiness of a Rollcall node",
        "output": ready.reason,
        "notes": [f"{name} is left out of the verdict" for name in sorted(ready.excluded)],
        "checks": {check.id: [_health(check)] for check in ready.checks},
    }


def _health(check: Check) -> dict[str, Any]:
    said = {
        "status": _HEALTH[check.status],
        "observedValue": check.observed,
        "observedUnit": check.unit,
        "time": None if check.at is None else _iso(check.at),
        "output": check.reason,
    }
    return {name: value for name, value in said.items() if value not in (None, "")}


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
