"""Who is silent: pure, on findings that were made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.peers.silence import (
    ALONE_S,
    DOUBT_S,
    LEAVING_S,
    SETTLE_S,
    SHORT_DOUBT_S,
    Away,
    Beat,
    RoundTrips,
    Silence,
    explain,
)

ME = "me"
PEERS = ["a", "b", "c"]
START = 100.0
SETTLED = START + SETTLE_S
T = SETTLED + 10

Event = tuple[str, str, str, float, bool]

TIMES = st.integers(min_value=100, max_value=160).map(float)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["reached", "missed", "withdrew", "left", "doubt"]),
        st.sampled_from([ME, *PEERS]),
        st.sampled_from(PEERS),
        TIMES,
        st.booleans(),
    ),
    max_size=30,
)


def play(events: list[Event]) -> Silence:
    silence = Silence(ME, START)
    for what, by, peer, at, refused in events:
        acts: dict[str, Callable[[], None]] = {
            "reached": lambda peer=peer, at=at, by=by: silence.reached(peer, at, by=by),  # type: ignore[misc]
            "missed": lambda peer=peer, at=at, by=by, refused=refused: silence.missed(  # type: ignore[misc]
                peer, at, by=by, refused=refused
            ),
            "withdrew": lambda peer=peer, at=at, by=by: silence.withdrew(peer, at, by=by),  # type: ignore[misc]
            "left": lambda peer=peer, at=at: silence.left(peer, at),  # type: ignore[misc]
            "doubt": lambda at=at: silence.doubt(at),  # type: ignore[misc]
        }
        acts[what]()
    return silence


@given(EVENTS, TIMES)
def test_nobody_is_silent_by_one_reporter(events: list[Event], now: float) -> None:
    """Neither by hearsay alone, nor by the own finding while somebody is there who could be asked."""
    silence = play(events)
    for peer, away in silence.away(PEERS, now).items():
        if away.left:
            continue
        assert silence.misses(peer)
        others = set(away.reporters) - {ME, peer}
        if not others:
            there = [each for each in PEERS if each not in silence.away(PEERS, now)]
            assert all(silence.misses(each) for each in there), "nobody was there to be asked"
            assert now - away.since >= ALONE_S


@given(EVENTS, TIMES, st.randoms())
def test_the_order_of_findings_does_not_matter(
    events: list[Event], now: float, draw: object
) -> None:
    shuffled = list(events)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    assert play(shuffled).away(PEERS, now) == play(events).away(PEERS, now)
    assert play(events * 2).away(PEERS, now) == play(events).away(PEERS, now)


@given(EVENTS, TIMES)
def test_who_doubts_itself_accuses_nobody(events: list[Event], now: float) -> None:
    silence = play(events)
    latest = max([now, *(at for *_, at, _ in events)])
    silence.doubt(latest + DOUBT_S)
    assert silence.doubts(latest)
    assert not silence.unreached(PEERS)
    assert all(away.left for away in silence.away(PEERS, latest).values())


@given(EVENTS, TIMES)
def test_who_has_answered_last_is_there(events: list[Event], now: float) -> None:
    silence = play(events)
    latest = max([now, *(at for *_, at, _ in events)]) + LEAVING_S
    silence.reached("a", latest)
    assert "a" not in silence.away(PEERS, latest)


def two() -> Silence:
    """All have answered at T, and b has found that a does not."""
    silence = Silence(ME, START)
    for peer in PEERS:
        silence.reached(peer, T)
    silence.missed("a", T + 2, by="b")
    return silence


def test_two_reporters_make_a_peer_silent_and_its_answer_ends_that() -> None:
    silence = two()
    assert silence.away(PEERS, T + 3) == {}
    silence.missed("a", T + 1)
    assert silence.away(PEERS, T + 3) == {"a": Away(T, reporters=("b",))}
    assert silence.unreached(PEERS) == ["a"]
    silence.reached("a", T + 4)
    assert silence.away(PEERS, T + 5) == {}
    silence.missed("a", T + 5)
    assert silence.away(PEERS, T + 6) == {}, "what b found is older than the last answer"


def test_where_another_reaches_it_a_peer_is_not_silent() -> None:
    """Fault 18: packets are lost one way only."""
    silence = two()
    silence.missed("a", T + 1)
    silence.reached("a", T + 1.5, by="c")
    assert silence.away(PEERS, T + 3) == {}
    assert silence.unreached(PEERS) == []
    silence.missed("a", T + 5)
    assert list(silence.away(PEERS, T + 6)) == ["a"], "c reached it before this look began"


def test_who_is_not_in_the_roster_has_no_say() -> None:
    silence = two()
    silence.missed("a", T + 1)
    assert silence.away(["a", "c"], T + 3) == {}
    silence.keep_only(["a", "c"])
    assert silence.away(PEERS, T + 3) == {}


def test_a_goodbye_is_not_silence_and_lasts_until_the_peer_answers_anew() -> None:
    silence = two()
    silence.left("a", T + 3)
    silence.reached("a", T + 3 + LEAVING_S / 2)
    silence.missed("a", T + 5)
    assert silence.away(PEERS, T + 6) == {"a": Away(T + 3, left=True)}
    assert silence.unreached(PEERS) == []
    silence.reached("a", T + 9)
    assert silence.away(PEERS, T + 9) == {}


def test_of_two_nodes_the_other_is_silent_after_a_longer_time() -> None:
    silence = Silence(ME, START)
    silence.reached("a", T)
    silence.missed("a", T + 1)
    assert silence.away(["a"], T + ALONE_S - 0.1) == {}
    assert silence.away(["a"], T + ALONE_S) == {"a": Away(T)}
    assert not silence.cut_off(["a"], T + 2)


def test_of_three_the_last_two_are_two_once_the_third_is_silent() -> None:
    silence = two()
    silence.missed("a", T + 1)
    silence.reached("b", T + 20)
    silence.missed("b", T + 21)
    assert list(silence.away(["a", "b"], T + 22)) == ["a"]
    assert list(silence.away(["a", "b"], T + 20 + ALONE_S)) == ["a", "b"]


def test_a_node_that_reaches_nobody_is_cut_off_and_accuses_nobody() -> None:
    silence = Silence(ME, START)
    for peer in PEERS:
        silence.reached(peer, T)
        silence.missed(peer, T + 1)
    assert silence.cut_off(PEERS, T + 2)
    assert silence.away(PEERS, T + 1000) == {}


def test_where_hosts_refuse_the_network_works_and_all_others_may_be_gone() -> None:
    silence = Silence(ME, START)
    for peer in PEERS:
        silence.reached(peer, T)
        silence.missed(peer, T + 1, refused=True)
    assert not silence.cut_off(PEERS, T + 2)
    assert silence.away(PEERS, T + 2) == {}
    assert list(silence.away(PEERS, T + ALONE_S)) == PEERS


def test_a_node_that_has_just_started_accuses_nobody() -> None:
    silence = Silence(ME, START)
    silence.missed("a", START + 1)
    silence.missed("a", START + 1, by="b")
    assert silence.away(PEERS, START + 1) == {}
    silence.missed("a", SETTLED + 1)
    silence.missed("a", SETTLED + 1, by="b")
    assert silence.away(PEERS, SETTLED + 2) == {"a": Away(START, reporters=("b",))}


@pytest.mark.parametrize(
    ("monotonic", "wall", "doubt"),
    [
        (1, 1, 0),
        (1.9, 1.9, 0),
        (2.1, 2.1, SHORT_DOUBT_S),
        (60, 60, DOUBT_S),
        (1, 7200, DOUBT_S),
        (1, -30, DOUBT_S),
    ],
)
def test_a_beat_that_comes_late_or_after_a_sleep(
    monotonic: float, wall: float, doubt: float
) -> None:
    """Fault 22: a process that was stopped, and a machine that slept; there the monotonic clock stood still."""
    assert Beat(50, 1000).doubt(50 + monotonic, 1000 + wall) == doubt


def test_patience_follows_what_answers_take_within_bounds() -> None:
    trips = RoundTrips(1.0, 3.0)
    assert (trips.patience("a"), trips.of("a")) == (1.0, None)
    for _ in range(20):
        trips.took("a", 0.001)
    assert trips.patience("a") == 1.0
    trips.took("a", 4.0)
    assert trips.patience("a") == 3.0
    for _ in range(40):
        trips.took("a", 1.5)
    assert 1.5 < trips.patience("a") < 2
    trips.keep_only([])
    assert trips.of("a") is None


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (
            Away(10, reporters=("canary", "stable")),
            "witness has not answered this node for 1.4 s, nor canary, stable",
        ),
        (Away(10, left=True), "witness said goodbye 1.4 s ago"),
        (
            Away(-1000),
            "witness has not answered this node for 16 min, and nobody else is there to be asked",
        ),
        (Away(-10000, left=True), "witness said goodbye 2 h ago"),
    ],
)
def test_the_reason_says_who_looked_and_since_when(away: Away, words: str) -> None:
    assert explain("witness", away, 11.4) == words
