"""The alerts as a function: (what is known, what the rules find, silences, now) -> what is known then, and what is
told. An alert begins when its finding has lasted for the rule's `hold_s`, and ends when it was gone for `quiet_s`:
what comes and goes faster is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from coordinator.alerts.model import Alert, AlertState, Change, Finding, Severity, Silence
from coordinator.alerts.rules import rule_of


@dataclass
class Step:
    """`changed` are to be written, `forgotten` never fired and are gone. `noted` is for the history, `told` for the
    channel that is named, in this order."""

    changed: list[Alert] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    noted: list[tuple[Change, Alert]] = field(default_factory=list)
    told: list[tuple[str, Change, Alert]] = field(default_factory=list)


def step(
    known: Sequence[Alert],
    findings: Iterable[Finding],
    silences: Sequence[Silence],
    wanted_by: Callable[[Alert], Sequence[str]],
    now: float,
    new_id: Callable[[], str],
) -> Step:
    """`known` are those that have not ended, `wanted_by` names the channels that an alert is for. Idempotent: the same
    look twice at one moment changes nothing more."""
    found = {each.fingerprint: each for each in findings}
    made = Step()
    for before in known:
        after = _look(before, found.pop(before.fingerprint, None), now)
        if after is None:
            made.forgotten.append(before.id)
        else:
            _move(made, before, _silenced(after, silences, now), wanted_by)
    for fingerprint in sorted(found):
        after = _look(Alert.of(found[fingerprint], new_id(), now), found[fingerprint], now)
        if after is not None:
            _move(made, None, _silenced(after, silences, now), wanted_by)
    return made


def _silenced(alert: Alert, silences: Sequence[Silence], now: float) -> Alert:
    silence = next((each.id for each in silences if each.covers(alert, now)), None)
    return alert.with_(silenced=silence)


def _look(alert: Alert, found: Finding | None, now: float) -> Alert | None:
    """The alert after this look; None for one that went before it fired."""
    rule = rule_of(alert.rule)
    if found is None:
        if alert.state is AlertState.PENDING:
            return None
        gone = now if alert.gone is None else alert.gone
        if now - gone < rule.quiet_s:
            return alert.with_(gone=gone)
        return alert.with_(gone=gone, state=AlertState.ENDED, ended=gone)
    current = Alert.of(found, alert.id, alert.seen)
    alert = alert.with_(
        severity=found.severity,
        summary=current.summary,
        detail=current.detail,
        since=min(found.since, alert.since),
        gone=None,
    )
    if alert.state is AlertState.PENDING and now - alert.seen >= rule.hold_s:
        return alert.with_(state=AlertState.FIRING, began=now)
    return alert


def _move(
    made: Step, before: Alert | None, after: Alert, wanted_by: Callable[[Alert], Sequence[str]]
) -> None:
    if after.state is AlertState.FIRING and _is_worse(after.severity, after.worst):
        after = after.with_(worst=after.severity)
        made.noted.append((Change.FIRING, after))
    if after.state is AlertState.ENDED:
        made.noted.append((Change.RESOLVED, after))
        made.told += [(channel, Change.RESOLVED, after) for channel in after.told]
    elif after.state is AlertState.FIRING and after.silenced is None:
        hear = [
            each for each in wanted_by(after) if _is_worse(after.severity, after.told.get(each))
        ]
        after = after.with_(told={**after.told, **dict.fromkeys(hear, after.severity)})
        made.told += [(channel, Change.FIRING, after) for channel in hear]
    if after != before:
        made.changed.append(after)


def _is_worse(severity: Severity, than: Severity | None) -> bool:
    """Silenced alerts begin for a channel when the silence is over, and those that go on when the channel is new; who
    has heard of a beginning hears of the end."""
    return than is None or severity.rank < than.rank
