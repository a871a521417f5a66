"""The journal's entries, and what they add up to."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from agent.upgrade.phases import MOVES, TERMINAL, Event, Phase
from shared.errors import RollcallError
from shared.report import Target
from shared.wire import Wire


class JournalError(RollcallError):
    """The journal cannot be read, or says something that the table does not allow."""

    code = "journal"


class Kind(StrEnum):
    BEGIN = "begin"
    ENTER = "enter"
    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    REQUEST = "request"


class Entry(Wire):
    """One line. `enter` is the intent, written before the phase acts."""

    at: float
    upgrade: str
    kind: Kind
    phase: Phase
    data: dict[str, Any] = {}


class Status(StrEnum):
    ENTERED = "entered"
    PASSED = "passed"
    FAILED = "failed"
    REQUESTED = "requested"


class Record(Wire):
    """One upgrade as far as the journal knows it. Never built by hand: `fold` makes it."""

    upgrade: str
    target: Target
    label: str
    phase: Phase
    status: Status
    began: float
    entered: float
    ended: float | None = None
    reason: str = ""
    ordered: bool = False
    """It goes back because operators want it so: no failure, so no red, and the release is not blocked."""
    evidence: dict[Phase, dict[str, Any]] = {}
    spent: dict[str, float] = {}

    @property
    def over(self) -> bool:
        return self.phase in TERMINAL and self.status is not Status.REQUESTED

    def fact(self, phase: Phase, name: str) -> Any:
        """A piece of evidence of a phase that has passed; None when there is none."""
        return self.evidence.get(phase, {}).get(name)


def fold(entries: list[Entry]) -> Record | None:
    """The last upgrade in the journal. Raises JournalError for entries that do not follow."""
    record: Record | None = None
    for entry in entries:
        record = apply(record, entry)
    return record


_EVENTS = {
    Status.PASSED: Event.PASSED,
    Status.FAILED: Event.FAILED,
    Status.REQUESTED: Event.REQUESTED,
}


def next_phase(record: Record) -> Phase:
    """Where the table leads from here. Raises JournalError where it leads nowhere."""
    event = _EVENTS.get(record.status)
    following = None if event is None else MOVES.get((record.phase, event))
    if following is None:
        raise JournalError(f"no way on from {record.phase}, {record.status}")
    return following


def check_follows(record: Record | None, entry: Entry) -> None:
    """Raises JournalError for an entry that the table does not allow after `record`. Only for what is
    written: what an earlier version of the agent has written was right by its own table."""
    if record is None or entry.kind is Kind.BEGIN:
        return
    if entry.kind is Kind.ENTER:
        expected = next_phase(record)
    else:
        expected = record.phase
        if entry.kind is not Kind.REQUEST and record.status is not Status.ENTERED:
            raise JournalError(f"{entry.kind} of {entry.phase}, which is {record.status} already")
    if entry.phase is not expected:
        raise JournalError(f"{entry.kind} of {entry.phase}; {expected} is what follows")


def apply(record: Record | None, entry: Entry) -> Record:
    if entry.kind is Kind.BEGIN:
        if record is not None and not record.over:
            raise JournalError(f"{entry.upgrade} begins while {record.upgrade} has not ended")
        return Record(
            upgrade=entry.upgrade,
            target=Target.from_value(entry.data["target"]),
            label=str(entry.data["label"]),
            phase=entry.phase,
            status=Status.ENTERED,
            began=entry.at,
            entered=entry.at,
        )
    if record is None or record.upgrade != entry.upgrade:
        raise JournalError(f"an entry of {entry.upgrade}, which never began")
    return record.model_copy(update=_changes(record, entry))


def _changes(record: Record, entry: Entry) -> dict[str, Any]:
    spent = {**record.spent}
    name = str(record.phase)
    if entry.kind in (Kind.PASS, Kind.FAIL) and record.status is Status.ENTERED:
        spent[name] = round(spent.get(name, 0.0) + max(0.0, entry.at - record.entered), 3)
    match entry.kind:
        case Kind.ENTER:
            over = entry.phase in TERMINAL
            return {
                "phase": entry.phase,
                "status": Status.ENTERED,
                "entered": entry.at,
                "ended": entry.at if over else None,
            }
        case Kind.PASS:
            evidence = {**record.evidence, entry.phase: entry.data}
            return {"status": Status.PASSED, "evidence": evidence, "spent": spent}
        case Kind.FAIL:
            reason = str(entry.data.get("reason", ""))
            kept = f"{record.reason}; {reason}" if record.reason else reason
            return {"status": Status.FAILED, "reason": kept[:2000], "spent": spent}
        case Kind.REQUEST:
            return {
                "status": Status.REQUESTED,
                "reason": str(entry.data.get("reason", "")),
                "ordered": bool(entry.data.get("ordered", False)),
            }
        case Kind.BEGIN:
            return {}
