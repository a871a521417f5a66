"""Beginning and end of an alert: no network, no clock, no database."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.alerts.ledger import Step, step
from coordinator.alerts.model import Alert, AlertState, Change, Finding, Severity, Silence
from coordinator.alerts.queue import Queued, victims

HELD = "health-degraded"
"""Must hold for 60 s, and be gone for 300."""
AT_ONCE = "red-open"


def finding(rule: str = HELD, severity: Severity = Severity.MEDIUM, words: str = "x") -> Finding:
    return Finding(rule, "a", severity, words, 0.0)


class Ledger:
    def __init__(self) -> None:
        self.open: dict[str, Alert] = {}
        self.ended: list[Alert] = []
        self.told: list[tuple[Change, Severity]] = []
        self.noted: list[Change] = []
        self.silences: list[Silence] = []
        self.channels = ["ops"]
        self._ids = count(1)

    def look(self, now: float, *found: Finding) -> Step:
        made = step(
            list(self.open.values()),
            found,
            self.silences,
            lambda _: self.channels,
            now,
            lambda: f"{next(self._ids):08x}",
        )
        for each in made.changed:
            if each.state is AlertState.ENDED:
                self.ended.append(self.open.pop(each.id, each))
            else:
                self.open[each.id] = each
        for id_ in made.forgotten:
            del self.open[id_]
        self.told += [
            (change, alert.severity) for channel, change, alert in made.told if channel == "ops"
        ]
        self.noted += [change for change, _ in made.noted]
        return made

    @property
    def changes(self) -> list[Change]:
        return [change for change, _ in self.told]


def test_it_begins_when_it_has_held_and_ends_when_it_is_gone_for_a_while() -> None:
    ledger = Ledger()
    for now in (0, 30, 59):
        ledger.look(now, finding())
    assert ledger.changes == []
    ledger.look(60, finding())
    assert ledger.changes == [Change.FIRING]
    ledger.look(65)
    ledger.look(364)
    assert ledger.changes == [Change.FIRING]
    (last,) = ledger.look(365).changed
    assert ledger.changes == [Change.FIRING, Change.RESOLVED]
    assert (last.began, last.ended) == (60, 65)


def test_what_does_not_hold_is_forgotten() -> None:
    ledger = Ledger()
    ledger.look(0, finding())
    assert ledger.look(30).forgotten
    ledger.look(31, finding())
    ledger.look(89, finding())
    assert ledger.changes == []


def test_what_flaps_is_told_once() -> None:
    ledger = Ledger()
    for now in range(0, 6000, 5):
        flaps = now // 100 % 2 == 0
        ledger.look(now, *([finding()] if flaps else []))
    assert ledger.changes == [Change.FIRING]
    for now in range(6000, 6400, 5):
        ledger.look(now)
    assert ledger.changes == [Change.FIRING, Change.RESOLVED]


def test_worse_is_told_again_and_better_is_not() -> None:
    ledger = Ledger()
    for severity in (Severity.MEDIUM, Severity.CRITICAL, Severity.HIGH, Severity.CRITICAL):
        ledger.look(0, finding(AT_ONCE, severity))
    assert ledger.told == [
        (Change.FIRING, Severity.MEDIUM),
        (Change.FIRING, Severity.CRITICAL),
    ]


def test_a_silence_keeps_it_quiet_and_what_still_holds_is_told_after_it() -> None:
    ledger = Ledger()
    silence = Silence(
        id="0" * 8, rule=AT_ONCE, subject="", reason="known", by="me", begins=0, ends=50
    )
    ledger.silences = [silence]
    (made,) = ledger.look(0, finding(AT_ONCE)).changed
    assert (made.state, made.silenced, ledger.changes) == (AlertState.FIRING, "0" * 8, [])
    ledger.look(49, finding(AT_ONCE))
    assert ledger.changes == []
    ledger.look(50, finding(AT_ONCE))
    assert ledger.changes == [Change.FIRING]


def test_what_ends_within_a_silence_was_never_told() -> None:
    ledger = Ledger()
    ledger.silences = [Silence(id="0" * 8, subject="a", reason="x", by="me", begins=0, ends=50)]
    ledger.look(0, finding(AT_ONCE))
    ledger.look(10)
    assert (ledger.changes, len(ledger.ended)) == ([], 1)
    assert ledger.noted == [Change.FIRING, Change.RESOLVED], "the history has it all the same"


def test_who_heard_of_it_hears_of_its_end_also_within_a_silence() -> None:
    ledger = Ledger()
    ledger.look(0, finding(AT_ONCE))
    ledger.silences = [Silence(id="0" * 8, subject="a", reason="x", by="me", begins=1, ends=50)]
    ledger.look(10)
    assert ledger.changes == [Change.FIRING, Change.RESOLVED]


@pytest.mark.parametrize(("rule", "subject"), [("red-open", "b"), ("disk", "a"), ("disk", "")])
def test_a_silence_covers_what_it_names(rule: str, subject: str) -> None:
    ledger = Ledger()
    made = Silence(id="0" * 8, rule=rule, subject=subject, reason="x", by="me", begins=0, ends=50)
    ledger.silences = [made]
    ledger.look(0, finding(AT_ONCE))
    assert ledger.changes == [Change.FIRING]


def test_a_channel_that_is_new_hears_what_goes_on_and_no_end_of_what_it_never_heard() -> None:
    ledger = Ledger()
    ledger.channels = []
    ledger.look(0, finding(AT_ONCE), finding("upgrade-failed"))
    ledger.channels = ["ops"]
    ledger.look(5, finding(AT_ONCE))
    assert ledger.changes == [Change.FIRING]
    ledger.look(10)
    assert ledger.changes == [Change.FIRING, Change.RESOLVED]
    assert ledger.noted.count(Change.RESOLVED) == 2


def test_other_words_are_the_same_alert() -> None:
    ledger = Ledger()
    ledger.look(0, finding(AT_ONCE))
    ledger.look(5, finding(AT_ONCE, words="y"))
    assert [each.summary for each in ledger.open.values()] == ["y"]
    assert ledger.changes == [Change.FIRING]


def test_an_alert_of_a_rule_that_is_no_more_ends() -> None:
    ledger = Ledger()
    old = Alert.of(finding("of-an-older-version"), "f" * 8, 0)
    ledger.open[old.id] = old.with_(
        state=AlertState.FIRING, began=0.0, told={"ops": Severity.MEDIUM}
    )
    ledger.look(1)
    ledger.look(62)
    assert ledger.changes == [Change.RESOLVED]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.sampled_from(Severity)), max_size=40)
)
def test_told_are_beginnings_that_get_worse_and_then_one_end(
    looks: list[tuple[int, bool, Severity]],
) -> None:
    """And a second look at the same moment changes nothing."""
    ledger, now = Ledger(), 0
    for pause, there, severity in looks:
        now += pause
        found = [finding(HELD, severity)] if there else []
        ledger.look(now, *found)
        again = ledger.look(now, *found)
        assert not again.told
        assert not again.changed
    worst: Severity | None = None
    for change, severity in ledger.told:
        if change is Change.RESOLVED:
            assert worst is not None
            worst = None
        else:
            assert worst is None or severity.rank < worst.rank
            worst = severity


def test_what_a_full_queue_drops_first() -> None:
    waiting = [
        Queued(1, Change.RESOLVED),
        Queued(2, Change.FIRING),
        Queued(3, Change.ACKNOWLEDGED),
        Queued(4, Change.FIRING),
    ]
    assert victims(waiting, 2) == [2, 3]
    assert victims(waiting, 4) == [2, 3, 4, 1]
