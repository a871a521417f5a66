"""What operators and agents do to a rollout, as functions; with what the engine then decides."""

from __future__ import annotations

import pytest

from coordinator.rollout import verbs
from coordinator.rollout.decide import decide
from coordinator.rollout.observe import observe
from shared.errors import ConflictError, NotFoundError, UntrustedError
from shared.report import UpgradeReport
from shared.rollout import NodeState, NodeView, Rollout, RolloutKind, RolloutState
from shared.wire import Order
from tests.unit.test_rollout import ID, NOW, RED, RELEASE, ended, fleet, make, states, view


def begun() -> Rollout:
    return decide(make(), fleet(), NOW)


def at_phase(name: str, phase: str, **changes: object) -> NodeView:
    upgrade = UpgradeReport(order=f"{ID}:{name}", release=RELEASE, phase=phase, began=0)
    return view(name, upgrade=upgrade, **changes)


def heard(name: str, *orders: Order) -> NodeView:
    return view(name, withdrawn=list(orders))


def test_pause_takes_back_what_nobody_took_and_resume_goes_on() -> None:
    paused = verbs.pause(begun(), "op", "lunch", NOW)
    assert (paused.state, paused.reason) == (RolloutState.PAUSED, "by op: lunch")
    assert set(states(paused).values()) == {NodeState.WAITING}
    same = decide(paused, fleet(), NOW + 1)
    assert set(states(same).values()) == {NodeState.WAITING}
    assert same.nodes[0].reason == "paused by op: lunch"
    resumed = verbs.resume(same, "op", "fed", fleet(), NOW)
    assert resumed.reason == "resumed by op: fed", "what the history keeps"
    going = decide(resumed, fleet(), NOW)
    assert going.reason == ""
    assert states(going)["canary"] is NodeState.PENDING
    with pytest.raises(ConflictError, match="is running: it cannot be resumed"):
        verbs.resume(going, "op", "", fleet(), NOW)


def test_what_moves_goes_on_while_paused() -> None:
    moving = decide(begun(), fleet(at_phase("canary", "staged")), NOW)
    paused = verbs.pause(moving, "op", "", NOW)
    assert states(paused)["canary"] is NodeState.MOVING
    done = decide(paused, fleet(ended("canary")), NOW)
    assert (done.state, states(done)["canary"]) == (RolloutState.PAUSED, NodeState.DONE)
    assert states(done)["stable"] is NodeState.WAITING


def test_resume_is_refused_while_what_stopped_it_still_would() -> None:
    halted = decide(begun(), fleet(reds=[RED]), NOW)
    assert {tuple(node.waits_for) for node in halted.nodes} == {("canary",)}, "whose red it is"
    with pytest.raises(ConflictError, match="red of canary"):
        verbs.resume(halted, "op", "", fleet(reds=[RED]), NOW)
    going = verbs.resume(halted, "op", "", fleet(), NOW)
    assert (going.state, going.ended) == (RolloutState.RUNNING, None)
    failed = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    with pytest.raises(ConflictError, match="1 of 1 in wave 1 failed") as at:
        verbs.resume(failed, "op", "", fleet(), NOW)
    assert at.value.remedy == "retry or skip what failed"


def test_abort_before_the_outage_ends_when_the_node_has_heard() -> None:
    aborting = verbs.abort(begun(), "op", "wrong one", NOW)
    assert aborting.state is RolloutState.ABORTING
    waiting = decide(aborting, fleet(), NOW)
    assert states(waiting) == {
        "canary": NodeState.PENDING,
        "stable": NodeState.SKIPPED,
        "witness": NodeState.SKIPPED,
    }
    ended_ = decide(waiting, fleet(heard("canary", f"{ID}:canary")), NOW)
    assert (ended_.state, states(ended_)["canary"]) == (RolloutState.ABORTED, NodeState.SKIPPED)
    assert ended_.nodes[0].reason == "before it began: aborted by op: wrong one"
    assert ended_.ended == NOW


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("dropped", NodeState.SKIPPED), ("rolled_back", NodeState.ROLLED_BACK), ("stuck", "failed")],
)
def test_abort_in_the_middle_waits_for_the_end(outcome: str, state: NodeState) -> None:
    moving = decide(begun(), fleet(at_phase("canary", "switched")), NOW)
    aborting = decide(
        verbs.abort(moving, "op", "", NOW), fleet(at_phase("canary", "switched")), NOW
    )
    assert (aborting.state, states(aborting)["canary"]) == (
        RolloutState.ABORTING,
        NodeState.MOVING,
    )
    after = decide(aborting, fleet(ended("canary", outcome)), NOW)
    assert (after.state, states(after)["canary"]) == (RolloutState.ABORTED, state)


def test_a_node_that_was_done_before_it_heard_stays_done() -> None:
    moving = decide(begun(), fleet(at_phase("canary", "soaking")), NOW)
    after = decide(verbs.abort(moving, "op", "", NOW), fleet(ended("canary")), NOW)
    assert (after.state, states(after)["canary"]) == (RolloutState.ABORTED, NodeState.DONE)


def test_a_node_that_never_answers_can_be_given_up() -> None:
    waiting = decide(verbs.abort(begun(), "op", "", NOW), fleet(), NOW)
    after = decide(verbs.skip(waiting, ["canary"], "op", "it is gone", NOW), fleet(), NOW)
    assert after.state is RolloutState.ABORTED


def test_only_what_runs_is_aborted() -> None:
    halted = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    with pytest.raises(ConflictError, match="is halted"):
        verbs.abort(halted, "op", "", NOW)
    moving = decide(begun(), fleet(at_phase("canary", "staged")), NOW)
    red = decide(moving, fleet(at_phase("canary", "staged"), reds=[RED]), NOW)
    assert red.state is RolloutState.HALTED
    assert verbs.abort(red, "op", "", NOW).state is RolloutState.ABORTING


def test_retry_gives_a_new_order_and_an_ended_rollout_goes_on() -> None:
    halted = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    again = verbs.retry(halted, [], "op", "", fleet(), NOW)
    assert again.state is RolloutState.RUNNING
    node = again.find("canary")
    assert node is not None
    assert (node.state, node.attempt) == (NodeState.WAITING, 2)
    assert node.order != f"{ID}:canary"
    assert node.order == verbs.order_id(ID, "canary", 2)
    assert node.order.endswith(":canary")
    going = decide(again, fleet(ended("canary", "dropped")), NOW)
    assert states(going)["canary"] is NodeState.PENDING, "the old order says nothing"
    with pytest.raises(ConflictError, match="no node of this rollout has failed"):
        verbs.retry(going, [], "op", "", fleet(), NOW)
    with pytest.raises(ConflictError, match="stable is waiting"):
        verbs.retry(going, ["stable"], "op", "", fleet(), NOW)
    with pytest.raises(NotFoundError, match="has no node 'nobody'"):
        verbs.retry(going, ["nobody"], "op", "", fleet(), NOW)


def test_retry_is_refused_where_the_node_would_not_take_the_release() -> None:
    halted = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    known = fleet(ended("canary", "dropped", blocked=[RELEASE]))
    with pytest.raises(ConflictError, match="failed on canary before") as told:
        verbs.retry(halted, [], "op", "", known, NOW)
    assert "rollcall-agent blocklist clear" in str(told.value.remedy)


def test_a_rollout_without_a_node_left_to_move_ends_though_its_release_is_blocked() -> None:
    halted = decide(begun(), fleet(rollbacks={RELEASE: 3}), NOW)
    assert halted.state is RolloutState.HALTED
    left = verbs.skip(halted, ["canary", "stable", "witness"], "op", "", NOW)
    resumed = verbs.resume(left, "op", "", fleet(rollbacks={RELEASE: 3}), NOW)
    assert decide(resumed, fleet(rollbacks={RELEASE: 3}), NOW).state is RolloutState.ABORTED


def test_a_node_that_has_claimed_and_waits_says_for_what() -> None:
    claimed = verbs.claim(begun(), f"{ID}:canary", "canary", 300, NOW)
    frozen = fleet(view("canary", waiting="op froze this node"))
    node = decide(claimed, frozen, NOW + 1).find("canary")
    assert node is not None
    assert (node.state, node.reason) == (NodeState.MOVING, "op froze this node")


def test_an_undo_that_is_taken_back_when_the_node_has_gone_back_is_no_failure() -> None:
    began = begun()
    first = began.nodes[0]
    gone = UpgradeReport(
        order="00000001:canary",
        release=RELEASE,
        phase="rolled_back",
        outcome="rolled_back",
        began=0,
    )
    node = first.model_copy(
        update={"undoes": gone.order, "withdrawn": "by op", "state": NodeState.MOVING}
    )
    seen = observe(node, began, fleet(view("canary", upgrade=gone)), NOW)
    assert (seen.state, seen.reason) == (NodeState.SKIPPED, "it had gone back already: by op")


def test_an_undo_that_failed_is_a_matter_for_the_node() -> None:
    halted = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    undo = halted.model_copy(update={"kind": RolloutKind.UNDO})
    with pytest.raises(ConflictError, match="could not go back"):
        verbs.retry(undo, [], "op", "", fleet(), NOW)


def test_skip_lets_the_rest_go_on() -> None:
    halted = decide(begun(), fleet(ended("canary", "dropped")), NOW)
    skipped = verbs.skip(halted, ["canary"], "op", "it is odd", NOW)
    node = skipped.find("canary")
    assert node is not None
    assert (node.state, node.reason) == (NodeState.SKIPPED, "skipped by op: it is odd")
    going = decide(verbs.resume(skipped, "op", "", fleet(), NOW), fleet(), NOW)
    assert states(going)["stable"] is NodeState.PENDING
    with pytest.raises(ConflictError, match="no node is named"):
        verbs.skip(going, [], "op", "", NOW)
    with pytest.raises(NotFoundError, match="has no node 'nobody'") as told:
        verbs.skip(going, ["nobody"], "op", "", NOW)
    assert told.value.remedy == "it has: canary, stable, witness"


def test_a_rollout_whose_nodes_were_all_left_out_is_no_success() -> None:
    left = verbs.skip(make(), ["canary", "stable", "witness"], "op", "", NOW)
    ended = decide(left, fleet(), NOW)
    assert (ended.state, ended.ended) == (RolloutState.ABORTED, NOW)
    assert ended.reason == "no node has moved: all were left out"


def test_a_pending_node_is_skipped_once_it_has_heard() -> None:
    asked = verbs.skip(begun(), ["canary"], "op", "", NOW)
    assert states(decide(asked, fleet(), NOW))["canary"] is NodeState.PENDING
    after = decide(asked, fleet(heard("canary", f"{ID}:canary")), NOW)
    assert states(after)["canary"] is NodeState.SKIPPED
    moving = decide(begun(), fleet(at_phase("canary", "staged")), NOW)
    with pytest.raises(ConflictError, match="canary is moving"):
        verbs.skip(moving, ["canary"], "op", "", NOW)


def test_promote_ends_a_soak_and_nothing_else() -> None:
    staged = decide(begun(), fleet(at_phase("canary", "staged")), NOW)
    with pytest.raises(ConflictError, match="not only watched yet: canary"):
        verbs.promote(staged, "op", "")
    soaking = decide(begun(), fleet(at_phase("canary", "soaking")), NOW)
    assert states(soaking)["stable"] is NodeState.WAITING
    long = soaking.waves[0].model_copy(update={"estimated_s": 7200})
    soaking = soaking.model_copy(update={"waves": [long, *soaking.waves[1:]]})
    promoted = verbs.promote(soaking, "op", "calm")
    assert promoted.reason == "wave 1 promoted by op: calm"
    going = decide(promoted, fleet(at_phase("canary", "soaking")), NOW)
    assert states(going)["canary"] is NodeState.MOVING
    assert states(going)["stable"] is NodeState.PENDING
    assert going.eta == NOW + 7200, "it is watched on"


def test_a_claim_is_the_assignees_and_is_made_once() -> None:
    order = f"{ID}:canary"
    claimed = verbs.claim(begun(), order, "canary", 300, NOW)
    node = claimed.find("canary")
    assert node is not None
    assert (node.state, node.claimed, node.eta) == (NodeState.MOVING, NOW, NOW + 300)
    again = verbs.claim(claimed, order, "canary", 200, NOW + 5).find("canary")
    assert again is not None
    assert (again.claimed, again.eta) == (NOW, NOW + 205)
    with pytest.raises(UntrustedError, match="is for canary, not for stable"):
        verbs.claim(begun(), order, "stable", 300, NOW)
    with pytest.raises(ConflictError, match="is waiting"):
        verbs.claim(begun(), f"{ID}:stable", "stable", 300, NOW)
    with pytest.raises(NotFoundError):
        verbs.claim(begun(), "00000000:canary", "canary", 300, NOW)


def test_what_was_taken_back_cannot_be_claimed() -> None:
    order = f"{ID}:canary"
    withdrawn = verbs.withdraw(begun(), order, "not now")
    with pytest.raises(ConflictError, match="was taken back: not now"):
        verbs.claim(withdrawn, order, "canary", 300, NOW)
    with pytest.raises(ConflictError, match="not now"):
        verbs.withdraw(withdrawn, order, "again")
    aborting = verbs.abort(begun(), "op", "", NOW)
    with pytest.raises(ConflictError, match="was taken back"):
        verbs.claim(aborting, order, "canary", 300, NOW)


def test_a_claimed_order_is_not_taken_back_by_a_pause() -> None:
    claimed = verbs.claim(begun(), f"{ID}:canary", "canary", 300, NOW)
    paused = verbs.pause(claimed, "op", "", NOW)
    assert states(paused)["canary"] is NodeState.MOVING
