"""The phases of an upgrade and the one table of moves between them (DESIGN.md, 4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    CLAIMED = "claimed"
    FROZEN = "frozen"
    STAGED = "staged"
    VERIFIED = "verified"
    DRAINED = "drained"
    SNAPSHOTTED = "snapshotted"
    SWITCHED = "switched"
    MIGRATED = "migrated"
    RESTARTED = "restarted"
    PROVEN = "proven"
    ATTESTED = "attested"
    GOOD = "good"
    SOAKING = "soaking"
    REOPENING = "reopening"
    """The gateway was closed to new work and not stopped: it is opened again, and the order dropped."""
    ROLLING_BACK = "rolling_back"
    DONE = "done"
    DROPPED = "dropped"
    ROLLED_BACK = "rolled_back"
    STUCK = "stuck"


class Event(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    REQUESTED = "requested"
    """An operator asked for a rollback."""


BEFORE_OUTAGE: Final = (Phase.CLAIMED, Phase.FROZEN, Phase.STAGED, Phase.VERIFIED)
"""While these run the old gateway serves: undoing them is forgetting them."""

AFTER_STOP: Final = (
    Phase.SNAPSHOTTED,
    Phase.SWITCHED,
    Phase.MIGRATED,
    Phase.RESTARTED,
    Phase.PROVEN,
    Phase.ATTESTED,
    Phase.GOOD,
    Phase.SOAKING,
)
"""From the stop of the gateway on: undoing them is a rollback."""

FORWARD: Final = (*BEFORE_OUTAGE, Phase.DRAINED, *AFTER_STOP)
GOING_BACK: Final = (Phase.REOPENING, Phase.ROLLING_BACK)
TERMINAL: Final = frozenset({Phase.DONE, Phase.DROPPED, Phase.ROLLED_BACK, Phase.STUCK})


def _table() -> dict[tuple[Phase, Event], Phase]:
    moves: dict[tuple[Phase, Event], Phase] = {}
    ways_back = {
        **dict.fromkeys(BEFORE_OUTAGE, Phase.DROPPED),
        Phase.DRAINED: Phase.REOPENING,
        **dict.fromkeys(AFTER_STOP, Phase.ROLLING_BACK),
    }
    for phase, after in zip(FORWARD, (*FORWARD[1:], Phase.DONE), strict=True):
        back = ways_back[phase]
        moves[phase, Event.PASSED] = after
        moves[phase, Event.FAILED] = back
        moves[phase, Event.REQUESTED] = back
    moves[Phase.DONE, Event.REQUESTED] = Phase.ROLLING_BACK
    moves[Phase.REOPENING, Event.PASSED] = Phase.DROPPED
    moves[Phase.REOPENING, Event.FAILED] = Phase.ROLLING_BACK
    moves[Phase.ROLLING_BACK, Event.PASSED] = Phase.ROLLED_BACK
    moves[Phase.ROLLING_BACK, Event.FAILED] = Phase.STUCK
    moves[Phase.STUCK, Event.REQUESTED] = Phase.ROLLING_BACK
    return moves


MOVES: Final = _table()
"""`(where, what happened) -> where next`. A pair that is not here is not a move."""
