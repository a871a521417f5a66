"""How an alert is written for each kind of receiver. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coordinator.alerts.model import Alert, Change, Severity
from coordinator.alerts.words import rfc3339

SPEC_VERSION = "1.0"
PAGERDUTY_SEVERITY = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
}
PAGERDUTY_ACTION = {
    Change.FIRING: "trigger",
    Change.TEST: "trigger",
    Change.ACKNOWLEDGED: "acknowledge",
    Change.RESOLVED: "resolve",
}
PAGERDUTY_SUMMARY = 1024


@dataclass(frozen=True)
class Origin:
    """Who tells: the fleet's id and name, and where its coordinator is."""

    fleet: str
    name: str
    url: str


def cloud_event(
    origin: Origin, event: str, change: Change, alert: Alert, at: float
) -> dict[str, Any]:
    """CloudEvents 1.0, structured mode. `id` is the same at each attempt."""
    return {
        "specversion": SPEC_VERSION,
        "id": event,
        "source": f"urn:rollcall:fleet:{origin.fleet}",
        "type": f"io.rollcall.alert.{change}",
        "subject": f"{alert.rule}/{alert.subject}",
        "time": rfc3339(at),
        "datacontenttype": "application/json",
        "data": {"fleet": origin.name, **alert.model_dump(mode="json", exclude={"told"})},
    }


def alertmanager_alert(origin: Origin, alert: Alert, now: float, lasts_s: float) -> dict[str, Any]:
    """As `POST /api/v2/alerts` takes it. One that has not ended is good for `lasts_s` and is sent again before that is
    over: when the coordinator is lost, Alertmanager ends it by itself."""
    began = alert.seen if alert.began is None else alert.began
    return {
        "labels": {
            "alertname": alert.rule,
            "subject": alert.subject,
            "severity": alert.severity.value,
            "fleet": origin.name,
            "fingerprint": alert.fingerprint,
        },
        "annotations": {"summary": alert.summary, "description": alert.detail, "id": alert.id},
        "startsAt": rfc3339(began),
        "endsAt": rfc3339(now + lasts_s if alert.ended is None else max(alert.ended, began)),
        "generatorURL": f"{origin.url}/v1/alerts/{alert.id}",
    }


def pagerduty_event(
    origin: Origin, routing_key: str, change: Change, alert: Alert
) -> dict[str, Any]:
    """As the Events API v2 takes it. The key is the fingerprint's, so that a later alert of the same kind opens the
    same incident again while it is unresolved there."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": PAGERDUTY_ACTION[change],
        "dedup_key": f"rollcall/{origin.fleet[:16]}/{alert.fingerprint}",
    }
    if event["event_action"] != "trigger":
        return event
    began = alert.seen if alert.began is None else alert.began
    payload = {
        "summary": alert.summary[:PAGERDUTY_SUMMARY],
        "source": alert.subject,
        "severity": PAGERDUTY_SEVERITY[alert.severity],
        "timestamp": rfc3339(began),
        "component": "rollcall",
        "group": origin.name,
        "class": alert.rule,
        "custom_details": {"id": alert.id, "detail": alert.detail},
    }
    return {**event, "client": "Rollcall", "payload": payload}


def plain_text(origin: Origin, change: Change, alert: Alert) -> tuple[str, str]:
    """Title and body, for people."""
    title = f"[{origin.name}] {change}: {alert.summary}"
    return title, "\n".join(
        each for each in (f"{alert.severity} {alert.rule} [{alert.id}]", alert.detail) if each
    )
