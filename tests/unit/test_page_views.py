"""What the fleet page says first: the rollout, what holds it up, and the way back."""

from __future__ import annotations

import pytest

from coordinator.page.views.fleet import Known, Wanted, fleet_page
from coordinator.page.views.now import SHOWN, now_of
from shared.freezing import By, Freeze
from shared.rollout import (
    NodeState,
    NodeView,
    RedView,
    Rollout,
    RolloutNode,
    RolloutOptions,
    RolloutState,
)
from shared.roster import Role


def node(name: str, state: NodeState, wave: int = 0, **more: object) -> RolloutNode:
    return RolloutNode.from_value(
        {"name": name, "role": "stable", "wave": wave, "order": f"aaaaaaaa:{name}", "state": state}
        | {"since": 5.0}
        | more
    )


def rollout(state: RolloutState, *nodes: RolloutNode, reason: str = "") -> Rollout:
    return Rollout(
        id="aaaaaaaa",
        release="a" * 64,
        label="2026.9.6",
        strategy=RolloutOptions().strategy,
        soak_s=60,
        set_by="alice",
        state=state,
        reason=reason,
        created=1.0,
        nodes=list(nodes),
    )


def red(reason: str, *, is_open: bool = True) -> RedView:
    return RedView(
        key="canary:1:1",
        origin="canary",
        kind="x",
        reason=reason,
        issued=1,
        open=is_open,
        acked_by=[],
    )


def test_who_moves_holds_it_up_before_who_waits_for_that() -> None:
    moving = node("canary", NodeState.MOVING, reason="waits", waits_for=["witness"])
    now = now_of(rollout(RolloutState.RUNNING, moving, node("b", NodeState.WAITING, 1)), [])
    assert now is not None
    assert (now.under_way, now.done, now.total, now.undo) == (True, 0, 2, "")
    assert [each.name for each in now.holding] == ["canary"]
    assert now.title == "A rollout is under way"


def test_many_are_counted() -> None:
    nodes = [node(f"n{at}", NodeState.PENDING) for at in range(SHOWN + 3)]
    now = now_of(rollout(RolloutState.RUNNING, *nodes), [])
    assert now is not None
    assert (len(now.holding), now.holding_more) == (SHOWN, 3)


@pytest.mark.parametrize("state", [RolloutState.SUCCEEDED, RolloutState.HALTED])
def test_what_is_over_can_be_taken_back(state: RolloutState) -> None:
    now = now_of(rollout(state, node("a", NodeState.DONE), node("b", NodeState.FAILED)), [])
    assert now is not None
    assert (now.under_way, now.undo) == (False, "/rollouts/new?undo=aaaaaaaa")
    nothing = now_of(rollout(state, node("b", NodeState.FAILED)), [])
    assert nothing is not None
    assert nothing.undo == "", "nobody has moved"
    assert now_of(None, []) is None


def test_a_red_that_is_shown_is_not_said_again() -> None:
    halted = rollout(RolloutState.HALTED, reason="red of canary: it hangs; ends when")
    for shown, origin in ((red("it hangs"), "canary"), (red("x"), ""), (red(""), "")):
        now = now_of(halted, [shown])
        assert now is not None
        assert now.red == origin
    ended = now_of(halted, [red("it hangs", is_open=False)])
    assert ended is not None
    assert ended.red == ""


def test_a_node_frozen_by_a_red_waits_for_its_end_in_a_few_words() -> None:
    frozen = {By.RED: "the end of the red of canary", By.HAND: "frozen since"}
    for by, words in frozen.items():
        freeze = Freeze(by=by, who="canary", why="it hangs", since=5, kind="x", node="b")
        view = NodeView(name="b", role=Role.STABLE, joined=1, freezes=[freeze])
        (row,) = fleet_page(Known(nodes=[view], reds=[], rollout=None), Wanted()).rows
        assert row.waits.startswith(words)
        assert row.since == 5
