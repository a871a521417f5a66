"""What an operator is shown of a rollout at a terminal."""

from __future__ import annotations

import pytest

from coordinator.cli.planview import can_be_aborted, describe_abort, eta_words, row
from coordinator.rollout import verbs
from coordinator.rollout.decide import decide
from shared.rollout import RolloutState
from tests.unit.test_rollout import NOW, RED, fleet, make
from tests.unit.test_rollout_verbs import at_phase


def test_who_is_paused_waits_for_an_operator() -> None:
    paused = verbs.pause(make(), "op", "lunch", NOW)
    shown = row(paused.nodes[0], paused, NOW + 3)
    assert (shown[3], shown[4], shown[6]) == ("waiting", "an operator", "paused by op: lunch")


def test_a_halted_rollout_can_be_aborted_while_a_node_is_on_its_way() -> None:
    moving = decide(make(), fleet(at_phase("canary", "staged")), NOW)
    halted = decide(moving, fleet(at_phase("canary", "staged"), reds=[RED]), NOW)
    assert halted.state is RolloutState.HALTED
    assert can_be_aborted(halted)
    assert any("drops its order" in line for line in describe_abort(halted))
    still = decide(make(), fleet(reds=[RED]), NOW)
    assert not can_be_aborted(still)
    assert "nothing to abort" in describe_abort(still)[0]


@pytest.mark.parametrize(
    ("eta", "words"),
    [
        (70.0, ", about 70 s left"),
        (-3.0, ", about 0 s left"),
        (-60.0, ", 60 s longer than planned"),
    ],
)
def test_what_lasts_longer_than_planned_is_said(eta: float, words: str) -> None:
    assert eta_words(make().model_copy(update={"eta": NOW + eta}), NOW) == words
