"""The latest rollout in short, for the fleet page: how far it is, what holds it up, and the way back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.page.views.rollout import holding_up
from shared.rollout import LIVE, NodeState, RedView, Rollout, RolloutNode, RolloutState

SHOWN = 4


@dataclass(frozen=True)
class Now:
    """`undo` is the page that takes back what it did; empty while it goes on, or where it did nothing."""

    rollout: Rollout
    under_way: bool
    title: str
    done: int
    total: int
    holding: tuple[RolloutNode, ...]
    holding_more: int
    undo: str
    red: str = ""
    """The node whose open red is what the rollout says it was halted by: that is said once."""


_TITLES = {
    RolloutState.PAUSED: "A rollout is paused",
    RolloutState.HALTED: "The last rollout was halted",
    RolloutState.ABORTING: "A rollout is being taken back",
}


def now_of(rollout: Rollout | None, reds: Sequence[RedView]) -> Now | None:
    if rollout is None:
        return None
    live = rollout.state in LIVE
    done = sum(node.state is NodeState.DONE for node in rollout.nodes)
    holding = holding_up(rollout)
    shown = (red.origin for red in reds if red.open and red.reason and red.reason in rollout.reason)
    return Now(
        rollout=rollout,
        under_way=live,
        title=_TITLES.get(rollout.state, "A rollout is under way" if live else "The last rollout"),
        done=done,
        total=len(rollout.nodes),
        holding=tuple(holding[:SHOWN]),
        holding_more=max(0, len(holding) - SHOWN),
        undo=f"/rollouts/new?undo={rollout.id}" if done and not live else "",
        red=next(shown, ""),
    )
