"""The next share of a node as a function: no network, no clock, no database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rollout.facts import SILENT_AFTER_S
from coordinator.traffic.decide import (
    AUTO,
    Next,
    Pace,
    Rules,
    Seen,
    Waits,
    Wanted,
    advance,
    asked_by,
    describe,
    next_step,
    observe,
    widening,
)
from shared.freezing import By, Freeze
from shared.messages import Verdict
from shared.report import Asker, UpgradeReport
from shared.rollout import NodeView
from shared.roster import Role
from shared.traffic import FleetFreeze

NOW, FOR = 1000.0, 60.0
ORDER, OLD, NEW = "a1b2c3d4:a", "b" * 64, "a" * 64
RULES = Rules(steps=[1, 5, 25, 50, 100], step_for=FOR)
FROZEN = FleetFreeze(since=NOW, by="eva", reason="a fair is on")
HAPROXY = Asker(address="10.0.0.9", via="agent-check", asked=NOW)


def upgrade(phase: str = "soaking", **changes: object) -> UpgradeReport:
    outcome = phase if phase in ("done", "rolled_back", "stuck", "dropped") else None
    made = UpgradeReport(order=ORDER, release=NEW, phase=phase, outcome=outcome, began=0)
    return made.model_copy(update=changes)


def view(**changes: object) -> NodeView:
    made = NodeView(
        name="a",
        role=Role.CANARY,
        joined=0,
        heard=NOW,
        status=Verdict.GREEN,
        release=NEW,
        weight=1,
        upgrade=upgrade(),
        balancers=[HAPROXY],
    )
    return made.model_copy(update=changes)


def wanted(percent: int = 1, **changes: Any) -> Wanted:
    made = Wanted(
        node="a",
        id="11111111:a",
        percent=percent,
        since=NOW,
        by=AUTO,
        reason="upgraded",
        release=NEW,
        upgrade=ORDER,
    )
    return replace(made, **changes)


def test_a_share_widens_step_by_step_once_it_was_green_for_long_enough() -> None:
    now, at, taken = NOW, wanted(1), [1]
    while at.percent < 100:
        before = at
        seen = Seen(view(weight=at.percent, heard=now))
        at = advance(at, seen, RULES, now, f"{len(taken):08x}:a")
        if at.id != before.id:
            taken.append(at.percent)
            assert (at.since, at.by, at.steady) == (now, AUTO, None)
        now += 30
    assert taken == [1, 5, 25, 50, 100]
    assert now - NOW == 4 * (FOR + 30), "each step is watched from when the node took it"


HOLDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "all frozen": ({}, {"frozen": FROZEN}, {}, "eva froze all ratios: a fair is on"),
    "a red": ({}, {"reds": ["red of b: tree"]}, {}, "red of b: tree"),
    "no rollout": ({}, {"fleet_frozen": "holidays"}, {}, "the fleet is frozen: holidays"),
    "its rollout": ({}, {"halted": {"a1b2c3d4": "halted: x"}}, {}, "a1b2c3d4 is halted: x"),
    "by hand": (
        {"freezes": [Freeze(by=By.HAND, who="root", why="look", since=NOW, node="a")]},
        {},
        {},
        "by hand",
    ),
    "silent": ({"heard": NOW - SILENT_AFTER_S - 1}, {}, {}, "waits to hear"),
    "another release": ({"release": OLD}, {}, {}, "another release"),
    "red itself": ({"status": Verdict.RED, "reason": "tree"}, {}, {}, "the node is red: tree"),
    "unknown": ({"status": Verdict.UNKNOWN}, {}, {}, "the node is unknown"),
    "not taken yet": ({"weight": 0, "weight_waits": "why"}, {}, {}, "takes 0 %, not 1 % yet: why"),
    "unsigned": ({}, {}, {"unsigned": {"b": "no answer"}}, "not seen green in this step by b"),
}


@pytest.mark.parametrize("case", HOLDS)
def test_whatever_speaks_against_it_holds_the_share_and_starts_its_time_anew(case: str) -> None:
    seen, rules, known, words = HOLDS[case]
    rule, looked = replace(RULES, **rules), Seen(view(**seen), **known)
    ready = wanted(steady=NOW - 10 * FOR)
    answer = next_step(ready, looked, rule, NOW)
    assert isinstance(answer, Waits)
    assert words in answer.reason
    after = advance(ready, looked, rule, NOW, "22222222:a")
    assert (after.percent, after.id, after.steady) == (1, ready.id, None)
    assert words in (widening(ready, looked, rule, NOW) or "")


def test_a_rollout_has_its_own_steps() -> None:
    own = replace(RULES, paces={"a1b2c3d4": Pace([10, 100], 5.0)})
    assert next_step(wanted(1, steady=NOW - 5), Seen(view()), own, NOW) == Next(10)
    assert next_step(wanted(1, steady=NOW - 4), Seen(view()), own, NOW) == Waits(
        "watched at 1 %: 1 s left of 5 s", steady=True
    )


def test_a_node_beside_another_core_is_not_given_all_and_keeps_nobody_waiting() -> None:
    """P7: its neighbours move next, and wait for nothing but that it is otherwise done."""
    beside = replace(RULES, beside={"a": ["b"]})
    ready, seen = wanted(50, steady=NOW - 10 * FOR), Seen(view(weight=50))
    assert next_step(ready, seen, beside, NOW) == Waits(
        "stays at 50 % until b beside it has the same core", steady=True, beside=True
    )
    assert advance(ready, seen, beside, NOW, "22222222:a") == ready
    assert widening(ready, seen, beside, NOW) is None
    assert "until b beside it" in describe(ready, seen, beside, NOW)
    assert next_step(ready, seen, RULES, NOW) == Next(100)
    smaller = Seen(view(weight=5))
    assert next_step(wanted(5, steady=NOW - FOR), smaller, beside, NOW) == Next(25)


def test_only_the_time_is_missing() -> None:
    begun = advance(wanted(), Seen(view()), RULES, NOW, "22222222:a")
    assert begun.steady == NOW
    answer = next_step(begun, Seen(view()), RULES, NOW + 20)
    assert answer == Waits("watched at 1 %: 40 s left of 60 s", steady=True)
    later = Seen(view(heard=NOW + FOR))
    assert next_step(begun, later, RULES, NOW + FOR) == Next(5)


@given(
    st.lists(st.integers(1, 99), max_size=8, unique=True).map(lambda found: [*sorted(found), 100]),
    st.integers(0, 99),
)
def test_a_step_is_always_wider_and_ends_at_all(steps: list[int], percent: int) -> None:
    seen = Seen(view(weight=percent))
    answer = next_step(
        wanted(percent, steady=NOW - FOR), seen, Rules(steps=steps, step_for=FOR), NOW
    )
    assert isinstance(answer, Next)
    assert answer.percent > percent
    assert answer.percent in steps
    assert not [each for each in steps if percent < each < answer.percent], "none is left out"


@dataclass(frozen=True)
class Moment:
    """What the coordinator saw for `lasts` seconds."""

    lasts: float
    green: bool = True
    signed: bool = True
    red: bool = False
    frozen: bool = False
    taken: bool = True

    @property
    def well(self) -> bool:
        return self.green and self.signed and self.taken and not (self.red or self.frozen)


MOMENTS = st.lists(
    st.builds(
        Moment,
        lasts=st.floats(1, 2 * FOR),
        green=st.booleans() | st.just(True),
        signed=st.booleans() | st.just(True),
        red=st.just(False) | st.booleans(),
        frozen=st.just(False) | st.booleans(),
        taken=st.booleans() | st.just(True),
    ),
    max_size=30,
)


@given(MOMENTS)
def test_whatever_happens_each_step_was_seen_well_for_its_whole_time(moments: list[Moment]) -> None:
    """A model of the rule, beside the function: the time counts from the last moment that was not well."""
    at, now, well_since = wanted(1), NOW, None
    for number, moment in enumerate(moments):
        seen = Seen(
            view(
                heard=now,
                weight=at.percent if moment.taken else 0,
                status=Verdict.GREEN if moment.green else Verdict.UNKNOWN,
            ),
            {} if moment.signed else {"b": "no answer"},
        )
        rules = replace(
            RULES, frozen=FROZEN if moment.frozen else None, reds=["red"] if moment.red else []
        )
        after = advance(at, seen, rules, now, f"{number:08x}:a")
        if not moment.well:
            well_since = None
        elif well_since is None:
            well_since = now
        due = at.percent < 100 and well_since is not None and now - well_since >= FOR
        assert (after.percent > at.percent) == due
        assert after.percent >= at.percent
        if due:
            well_since = None
        at, now = after, now + moment.lasts


def test_an_upgraded_node_begins_with_what_its_agent_took() -> None:
    first = observe(None, view(), NOW, "22222222:a")
    assert first is not None
    assert (first.percent, first.upgrade, first.release, first.before) == (1, ORDER, NEW, 100)
    assert first.widens
    assert observe(first, view(), NOW + 1, "33333333:a") is first
    alone = observe(None, view(weight=100, balancers=[]), NOW, "22222222:a")
    assert alone is not None
    assert not alone.widens
    for phase in ("staged", "drained", "attested", "good", "dropped", "stuck"):
        assert observe(None, view(upgrade=upgrade(phase)), NOW, "22222222:a") is None


def test_a_node_that_went_back_is_wanted_as_it_was_before() -> None:
    settled = wanted(100, release=OLD, upgrade="00000000:a")
    begun = observe(settled, view(), NOW, "22222222:a")
    assert begun is not None
    back = view(release=OLD, upgrade=upgrade("rolled_back"), weight=100)
    after = observe(begun, back, NOW + 5, "33333333:a")
    assert after is not None
    assert (after.percent, after.release, after.id) == (100, OLD, "33333333:a")
    assert observe(after, back, NOW + 6, "44444444:a") is after, "once"
    assert widening(after, Seen(back), RULES, NOW + 6) is None


def test_a_share_that_was_given_back_goes_back_with_its_release_too() -> None:
    given_back = wanted(40, by="eva", reason="enough", before=100)
    back = view(release=OLD, upgrade=upgrade("rolled_back"), weight=100)
    after = observe(given_back, back, NOW, "33333333:a")
    assert after is not None
    assert (after.percent, after.release) == (100, OLD)


def test_an_operators_word_stands_over_an_upgrade_until_it_is_given_back() -> None:
    word = wanted(40, pinned=True, by="eva", release=None, upgrade="")
    seen = Seen(view(weight=40))
    during = observe(word, seen.view, NOW, "22222222:a")
    assert during == replace(word, upgrade=ORDER)
    assert advance(word, seen, RULES, NOW + 10 * FOR, "22222222:a") == word
    assert widening(word, seen, RULES, NOW) is None
    assert "eva's word" in describe(word, seen, RULES, NOW)
    back = replace(word, pinned=False, upgrade=ORDER, steady=NOW - FOR)
    assert next_step(back, seen, RULES, NOW) == Next(50)


def test_a_wave_is_not_over_before_its_first_share_is_decided() -> None:
    assert widening(None, Seen(view()), RULES, NOW) == "its share is not decided yet"
    assert widening(None, Seen(view(weight=100)), RULES, NOW) is None
    assert widening(wanted(100), Seen(view(weight=100)), RULES, NOW) is None
    raising = Seen(view(weight=50, weight_waits="waits for its peers"))
    assert widening(wanted(100), raising, RULES, NOW) == (
        "it takes 50 %, not all of its traffic yet: waits for its peers"
    )
    drained = Seen(view(weight=0, upgrade=upgrade("drained")))
    assert widening(wanted(100, upgrade="00000000:a"), drained, RULES, NOW) is None, "it is out"


def test_a_node_stuck_without_traffic_says_how_it_gets_some() -> None:
    stuck = Seen(view(weight=0, upgrade=upgrade("stuck")))
    assert "rollcall traffic set a 100" in describe(None, stuck, RULES, NOW)


def test_only_who_asks_for_the_weight_counts() -> None:
    plain = Asker(address="10.0.0.8", via="readyz", asked=NOW)
    assert asked_by(view(balancers=[plain, HAPROXY, HAPROXY])) == ["10.0.0.9"]
