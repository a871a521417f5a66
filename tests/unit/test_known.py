"""Envelopes that are known by their bytes, and what a small MessagePack is."""

from __future__ import annotations

from agent.peers.known import MAX_KNOWN, Known
from scripts.lab.serf import _packed


def test_what_was_kept_is_known_with_its_ack_until_the_roster_changes() -> None:
    known = Known()
    known.add(b"red", b"ack")
    known.add(b"own")
    assert (b"red" in known, b"own" in known, b"other" in known) == (True, True, False)
    assert (known.ack(b"red"), known.ack(b"own"), known.ack(b"other")) == (b"ack", None, None)
    known.clear()
    assert b"red" not in known


def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    known = Known()
    for number in range(MAX_KNOWN + 1):
        known.add(b"%d" % number)
    assert (b"0" in known, b"1" in known, b"%d" % MAX_KNOWN in known) == (False, True, True)


def test_a_call_of_serf_is_messagepack() -> None:
    assert _packed({"Seq": 7}) == b"\x81\xa3Seq\xce\x00\x00\x00\x07"
    assert _packed({"Name": "x", "Coalesce": False}) == b"\x82\xa4Name\xa1x\xa8Coalesce\xc2"
