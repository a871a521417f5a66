"""Hints of where peers are: in which order they are tried, and that no source pushes out another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.peers.directory import (
    MAX_FAILURES,
    MAX_HINTS_PER_PEER,
    Directory,
    Found,
    Hint,
    parse_address,
)
from agent.peers.names import Names
from agent.peers.remembered import Memory
from tests.conftest import ManualClock


def hint(number: int, found: Found, port: int = 7465) -> Hint:
    return Hint(f"10.0.{number // 250}.{number % 250 + 1}", port, found)


def test_the_last_good_first_then_by_source() -> None:
    directory = Directory()
    by_source = [
        hint(number, found)
        for number, found in enumerate(
            (Found.STATIC, Found.MDNS, Found.COORDINATOR, Found.PEER, Found.REMEMBERED)
        )
    ]
    for each in reversed(by_source):
        directory.learn("b", each)
    assert directory.candidates("b") == by_source
    directory.reached("b", by_source[3])
    assert directory.candidates("b")[0] == by_source[3]
    assert directory.how("b") == "peer"


def test_one_address_of_several_sources_is_tried_once_and_shown_with_each() -> None:
    directory = Directory()
    for found in (Found.MDNS, Found.COORDINATOR):
        directory.learn("b", hint(1, found))
    assert directory.candidates("b") == [hint(1, Found.MDNS)]
    assert {each.found for each in directory.hints("b")} == {Found.MDNS, Found.COORDINATOR}


@pytest.mark.parametrize("loud", [Found.MDNS, Found.PEER, Found.COORDINATOR])
def test_a_source_that_says_much_pushes_out_its_own_only(loud: Found) -> None:
    directory = Directory()
    others = [each for each in (Found.MDNS, Found.PEER, Found.COORDINATOR) if each is not loud]
    quiet = [hint(number, found) for number, found in enumerate(others)]
    for each in quiet:
        directory.learn("b", each)
    for number in range(1000):
        directory.learn("b", hint(number, loud, port=1))
    found = directory.candidates("b")
    assert set(quiet) < set(found)
    assert len(found) == MAX_HINTS_PER_PEER + len(quiet)


def test_a_new_list_replaces_the_old_one_but_not_what_was_good() -> None:
    directory = Directory()
    old, good, new = (hint(number, Found.COORDINATOR) for number in range(3))
    assert directory.replace("b", Found.COORDINATOR, [old, good])
    directory.reached("b", good)
    assert directory.replace("b", Found.COORDINATOR, [new])
    assert directory.candidates("b") == [good, new]
    assert not directory.replace("b", Found.COORDINATOR, [new])


def test_an_address_of_our_own_is_nobody_elses() -> None:
    directory = Directory()
    directory.is_us(["172.17.0.1:7465"])
    for port in (7465, 7466):
        directory.learn("b", Hint("172.17.0.1", port, Found.MDNS))
    assert [each.port for each in directory.candidates("b")] == [7466], "an agent beside us"


def test_a_host_name_stands_for_its_addresses_once_they_are_known() -> None:
    directory = Directory()
    named = Hint("b.lan", 7465, Found.STATIC)
    directory.learn("b", named)
    assert directory.candidates("b") == [named]
    assert directory.names_to_resolve() == ["b.lan"]
    directory.resolve("b.lan", ["10.0.0.7", "fd00::7"])
    assert [each.host for each in directory.candidates("b")] == ["10.0.0.7", "fd00::7"]


async def test_names_are_looked_up_beside_the_loop_and_what_was_known_stays() -> None:
    directory = Directory()
    directory.learn("b", Hint("b.lan", 7465, Found.STATIC))
    answers = [["10.0.0.7"], None]

    def ask(host: str) -> list[str]:
        answer = answers.pop(0)
        if answer is None:
            raise OSError("no name server answers")
        return answer

    names = Names(directory, ManualClock(), ask)
    try:
        for _ in range(2):
            await names.resolve("b.lan")
            assert [each.host for each in directory.candidates("b")] == ["10.0.0.7"]
    finally:
        names.close()
    assert not answers


def test_who_came_to_us_is_shown_with_what_is_known_of_it() -> None:
    directory = Directory(lambda: 5.0)
    directory.accepted("b", "10.0.0.2")
    reach = directory.reach("b")
    assert reach is not None
    assert (reach.hint, reach.since) == (Hint("10.0.0.2", 0, Found.ACCEPTED), 5.0)
    directory.learn("b", hint(1, Found.PEER))
    directory.place("b", hint(8, Found.PEER))
    assert directory.reach("b") == reach, "another host than the one it came from"
    directory.place("b", hint(1, Found.PEER))
    assert directory.good("b") == [hint(1, Found.PEER)]
    directory.lost("b")
    directory.accepted("b", "10.0.0.2")
    assert directory.how("b") == "peer"


def test_failures_are_kept_until_it_is_reached_and_are_bounded() -> None:
    directory = Directory(lambda: 5.0)
    for number in range(2 * MAX_FAILURES):
        directory.failed("b", hint(number, Found.MDNS), "refused")
    directory.failed("b", hint(20, Found.MDNS), "timed out")
    kept = directory.failures("b")
    assert len(kept) == MAX_FAILURES
    assert (kept[0].address, kept[0].reason) == ("10.0.0.21:7465", "timed out")
    directory.reached("b", hint(1, Found.MDNS))
    assert not directory.failures("b")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.0.0.7:7465", "10.0.0.7"),
        ("[fd00::7]:7465", "fd00::7"),
        ("[fe80::7%eth0]:7465", None),
        ("0.0.0.0:7465", None),
        ("224.0.0.251:7465", None),
        ("[::]:7465", None),
        ("b.lan:7465", None),
        ("10.0.0.7:0", None),
        ("10.0.0.7:65536", None),
        ("10.0.0.7:²", None),
        ("10.0.0.7", None),
        ("", None),
    ],
)
def test_what_others_say_is_an_address_that_can_be_dialled_from_here(
    text: str, host: str | None
) -> None:
    found = parse_address(text, Found.PEER)
    assert (None if found is None else found.host) == host


def memory(path: Path, directory: Directory, *peers: str) -> Memory:
    return Memory(path, directory, lambda: list(peers), ManualClock())


async def test_where_peers_answered_is_known_after_a_restart(tmp_path: Path) -> None:
    path, before = tmp_path / "addresses.json", Directory(lambda: 7.0)
    for name in ("b", "gone"):
        before.learn(name, hint(1, Found.MDNS))
        before.reached(name, hint(1, Found.MDNS))
    await memory(path, before, "b", "c", "gone").save()
    assert path.stat().st_mode & 0o777 == 0o600
    after = Directory()
    again = memory(path, after, "b", "c")
    await again.load()
    assert after.candidates("b") == [hint(1, Found.REMEMBERED)]
    assert after.last_reached("b") == 7.0
    assert after.how("b") == ""
    assert not after.candidates("gone"), "the roster does not name it any more"
    await again.save()
    assert set(json.loads(path.read_text())["places"]) == {"b"}, "not reached yet, still kept"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"places": {"b": "x"}}', b'{"places": {"../b": []}}', b"\xff" * 2_000_000],
)
async def test_a_damaged_memory_is_ignored_and_written_anew(tmp_path: Path, content: bytes) -> None:
    path, directory = tmp_path / "addresses.json", Directory()
    path.write_bytes(content)
    path.chmod(0o600)
    kept = memory(path, directory, "b")
    await kept.load()
    assert not directory.candidates("b")
    directory.learn("b", hint(1, Found.STATIC))
    directory.reached("b", hint(1, Found.STATIC))
    await kept.save()
    again = Directory()
    await memory(path, again, "b").load()
    assert again.candidates("b") == [hint(1, Found.REMEMBERED)]


async def test_what_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    directory = Directory()
    directory.learn("b", hint(1, Found.STATIC))
    directory.reached("b", hint(1, Found.STATIC))
    folder = tmp_path / "home"
    kept = memory(folder / "addresses.json", directory, "b")
    await kept.save()
    await asyncio.to_thread(folder.mkdir)
    await kept.save()
    assert (folder / "addresses.json").exists()
