"""What the store owes to peers, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.messages import Message


@dataclass(frozen=True)
class Delivery:
    """A message that a peer has not acknowledged yet."""

    key: str
    peer: str
    raw: str
    at: float


@dataclass(frozen=True)
class Acked:
    """A peer's ack of the message `key`: when it came, in wall time, and how long after the decision."""

    ack: Message
    at: float
    key: str
    peer: str
    ms: float


@dataclass(frozen=True)
class Added:
    new: bool
    """False for one that was here already."""
    open: bool
    """It is a red that nothing has ended: its clear may have come before it."""
