"""Decides, and does nothing: `record -> instruction` (DESIGN.md, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status, next_phase
from shared.report import Target


@dataclass(frozen=True)
class Perform:
    """Run the step of this phase; after a restart that means: once more."""

    phase: Phase


@dataclass(frozen=True)
class Enter:
    """Journal the intent to be in this phase."""

    phase: Phase


@dataclass(frozen=True)
class Rest:
    """Nothing is left to do for this upgrade."""


Instruction = Perform | Enter | Rest


def decide(record: Record) -> Instruction:
    """Raises JournalError when the journal stands where no move leads on."""
    if record.over:
        return Rest()
    if record.status is Status.ENTERED:
        return Perform(record.phase)
    return Enter(next_phase(record))


@dataclass(frozen=True)
class Start:
    target: Target


@dataclass(frozen=True)
class GoBack:
    """Undo the upgrade that ended well here."""

    target: Target


@dataclass(frozen=True)
class Wait:
    """The flag is set and the node does not move; `reason` says whom it waits for (P9)."""

    reason: str


@dataclass(frozen=True)
class Nothing:
    """No upgrade is pending."""


def admit(
    target: Target | None,
    current: str | None,
    record: Record | None,
    freezes: list[str],
    own_reds: list[str],
    withdrawn: Sequence[str] = (),
) -> Start | GoBack | Wait | Nothing:
    """Whether the pending upgrade may begin now. An order is taken once, whatever came of it (P8). `freezes`
    says what keeps the node as it is, a sentence each; where an order is to be undone, only what was said by hand."""
    if target is None or target.order in withdrawn:
        return Nothing()
    if why := _why_stale(target, record):
        return Wait(why)
    if target.undoes is not None:
        return _admit_undo(target, target.undoes, record, freezes)
    if target.release == current or not _is_new(target, record):
        return Nothing()
    if freezes:
        return Wait("; ".join(freezes))
    if own_reds:
        return Wait(f"this node is red: {', '.join(own_reds)}")
    return Start(target)


def _is_new(target: Target, record: Record | None) -> bool:
    return record is None or (record.over and record.target.order != target.order)


def _why_stale(target: Target, record: Record | None) -> str:
    """A rollout from before the last one that this node has had part in: it leads back (fault 39)."""
    if record is None or not 0 < target.epoch < record.target.epoch:
        return ""
    return (
        f"order {target.order} is of a rollout from before that of {record.target.order}, which this node has had:"
        f" the coordinator's database was put back; end that: rollcall rollout abort {target.rollout}"
    )


def _admit_undo(
    target: Target, undoes: str, record: Record | None, freezes: list[str]
) -> GoBack | Wait | Nothing:
    """Only a node's last upgrade can be undone, and once."""
    if record is None or record.target.order != undoes:
        last = "none" if record is None else record.target.order
        return Wait(f"only the last upgrade can be undone, which is {last}, not {undoes}")
    if not record.over or record.phase is not Phase.DONE:
        return Nothing()
    return Wait("; ".join(freezes)) if freezes else GoBack(target)
