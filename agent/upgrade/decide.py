"""Decides, and does nothing: `record -> instruction` (DESIGN.md, 3)."""

from __future__ import annotations

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
) -> Start | Wait | Nothing:
    """Whether the pending upgrade may begin now. An order is taken once, whatever came of it (P8). `freezes`
    says what keeps the node as it is, a sentence each."""
    if target is None or target.release == current:
        return Nothing()
    if record is not None and not record.over:
        return Nothing()
    if record is not None and record.target.order == target.order:
        return Nothing()
    if freezes:
        return Wait("; ".join(freezes))
    if own_reds:
        return Wait(f"this node is red: {', '.join(own_reds)}")
    return Start(target)
