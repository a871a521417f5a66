"""Findings, which rules make anew at every look, and alerts, which last from the first such look to the last."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.canonical import canonical_json, sha256_hex
from shared.wire import Reason, Wire, short

SUMMARY_CHARS = 300
DETAIL_CHARS = 2000


class Severity(StrEnum):
    """From the worst on."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


class AlertState(StrEnum):
    PENDING = "pending"
    """Seen, and not yet for as long as its rule wants."""
    FIRING = "firing"
    ENDED = "ended"


AlertId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
RuleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,39}$")]
Subject = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""A node's name, a rollout's id, or a part of the fleet such as `root`."""


@dataclass(frozen=True)
class Finding:
    """What one rule says of one subject now. `key` tells two findings of one rule and subject apart; texts may
    change from look to look, so they hold no ages and are no part of the fingerprint."""

    rule: str
    subject: str
    severity: Severity
    summary: str
    since: float
    detail: str = ""
    key: str = ""

    @property
    def fingerprint(self) -> str:
        return sha256_hex(canonical_json([self.rule, self.subject, self.key]))[:16]


class Acknowledgement(Wire):
    """Somebody has taken it on."""

    at: float
    by: str
    reason: Reason = ""


class Alert(Wire):
    """Times are seconds since the epoch. `since` is when what it says began, `began` when it fired. `told` is the
    severity that each channel heard last."""

    id: AlertId
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    rule: RuleName
    subject: str
    severity: Severity
    summary: Annotated[str, Field(max_length=SUMMARY_CHARS)]
    detail: Annotated[str, Field(max_length=DETAIL_CHARS)] = ""
    state: AlertState = AlertState.PENDING
    since: float
    seen: float
    """The first look that found it."""
    began: float | None = None
    gone: float | None = None
    """The first look that did not find it any more."""
    ended: float | None = None
    acknowledged: Acknowledgement | None = None
    worst: Severity | None = None
    """That it ever had while it fired."""
    told: dict[str, Severity] = {}
    silenced: str | None = None
    """The silence that keeps it from being told, if one does now."""

    @classmethod
    def of(cls, found: Finding, id_: str, now: float) -> Alert:
        return cls(
            id=id_,
            fingerprint=found.fingerprint,
            rule=found.rule,
            subject=found.subject,
            severity=found.severity,
            summary=short(found.summary, SUMMARY_CHARS),
            detail=short(found.detail, DETAIL_CHARS),
            since=found.since,
            seen=now,
        )

    def with_(self, **changes: object) -> Alert:
        return self.model_copy(update=changes)


class Silence(Wire):
    """Alerts of `rule` about `subject`, or of any where one is empty, are not told of while it lasts."""

    id: AlertId
    rule: str = ""
    subject: str = ""
    reason: Reason
    by: str
    begins: float
    ends: float
    lifted_by: str = ""
    """Who ended it before its time."""

    def covers(self, alert: Alert, now: float) -> bool:
        return (
            self.begins <= now < self.ends
            and self.rule in ("", alert.rule)
            and self.subject in ("", alert.subject)
        )


class Change(StrEnum):
    """What receivers are told of, and what stands in the history."""

    FIRING = "firing"
    """It began, or has become worse."""
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    TEST = "test"


class AlertEvent(Wire):
    """One line of an alert's history."""

    id: int
    at: float
    alert: AlertId
    change: Change
    severity: Severity
    by: str = ""
    reason: Reason = ""
