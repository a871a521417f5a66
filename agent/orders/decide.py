"""Decides, and does nothing: whether an order may be taken up now.

A frozen node keeps what works as it is. So under a peer's red a restart waits while this node is green, for it
would take a healthy node out; one that is not green may be restarted, which can only help. A rollback leads to
what was proven, and goes on under a red, as `rollcall-agent rollback` does. A freeze by hand stops both: an
administrator of this node has said so. Collecting logs changes nothing and never waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.freezing import By, Freeze
from shared.orders import OrderKind


@dataclass(frozen=True)
class Now:
    """What it depends on. `moving` is the upgrade that runs on this node, empty without one."""

    freezes: list[Freeze]
    green: bool
    moving: str


def hold_back(kind: str, now: Now) -> str:
    """Why an order of this kind waits; empty when it may be taken up."""
    if kind == OrderKind.COLLECT_LOGS:
        return ""
    by_hand = [freeze.words for freeze in now.freezes if freeze.by is By.HAND]
    if by_hand:
        return by_hand[0]
    if kind == OrderKind.ROLLBACK:
        return ""
    if now.moving:
        return f"upgrade {now.moving} moves this node"
    if now.freezes and now.green:
        return now.freezes[0].words
    return ""
