"""With whom a node of a large fleet is connected, and what reaches whom over that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from agent.config import PeerConfig
from agent.peers.overlay import Overlay, neighbours
from agent.peers.silence import SETTLE_S
from shared.messages import Red, RedKind
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_mesh import Peer, with_files

LINKS = 12
Graph = Mapping[str, frozenset[str]]


def graph(names: list[str], links: int = LINKS) -> Graph:
    return {name: neighbours(name, set(names) - {name}, links) for name in names}


def hops(graph: Graph, start: str, without: str = "") -> dict[str, int]:
    """To everybody who can be reached."""
    found, waiting = {start: 0}, deque([start])
    while waiting:
        here = waiting.popleft()
        for there in graph[here] - found.keys() - {without}:
            found[there] = found[here] + 1
            waiting.append(there)
    return found


def names(count: int) -> list[str]:
    return [f"mac-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, 5, 12, 40, 200])
def test_both_ends_choose_each_other_and_nobody_himself(count: int) -> None:
    found = graph(names(count))
    for name, near in found.items():
        assert name not in near
        assert len(near) <= LINKS
        assert all(name in found[other] for other in near)


@pytest.mark.parametrize(("count", "links"), [(4, 4), (40, 4), (60, 12)])
def test_without_any_one_node_the_rest_holds_together(count: int, links: int) -> None:
    found = graph(names(count), links)
    for gone in found:
        start = next(name for name in found if name != gone)
        assert len(hops(found, start, without=gone)) == count - 1


def test_everybody_is_a_few_hops_away() -> None:
    far = max(hops(graph(names(500)), "mac-0").values())
    assert far <= 4, far


def test_who_joins_moves_nobody_else() -> None:
    """One connection of a ring is replaced by two."""
    before, after = graph(names(200)), graph(names(201))
    ended = {(a, b) for a in before for b in before[a] - after[a]}
    made = {(a, b) for a in before for b in after[a] - before[a]}
    assert len(ended) <= LINKS
    assert all(b == "mac-200" for _, b in made)


SMALL = PeerConfig(sync_every=600, full_mesh_below=10, links=4)
COUNT = 14
LONG_S = 40.0


def test_below_the_number_all_are_chosen(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, tuple(f"n{number}" for number in range(10)))
    trust = fleet.trust("n0")
    full = Overlay(trust, links=4, full_mesh_below=11)
    assert full.is_full
    assert full.chosen() == trust.peer_names()
    sparse = Overlay(trust, links=4, full_mesh_below=10)
    assert not sparse.is_full
    assert len(sparse.chosen()) <= 4
    trust.roster = fleet.roster(revoked=("n9",), epoch=2)
    assert len(sparse.chosen()) == 8, "nine are left, and so all are chosen"


@pytest.fixture
def large(tmp_path: Path) -> TestFleet:
    return with_files(make_fleet(tmp_path, tuple(f"n{number:02}" for number in range(COUNT))))


@pytest.fixture
async def many(large: TestFleet) -> AsyncIterator[dict[str, Peer]]:
    """Each linked with at most four; no notes are compared meanwhile."""
    found = {name: Peer(large, name, datagrams=True, config=SMALL) for name in large.names}
    for peer in found.values():
        await peer.up()
    yield found
    await asyncio.gather(*(peer.down() for peer in found.values()))


async def until(condition: Callable[[], bool], what: str) -> None:
    """So many nodes in one process take their time on a busy machine."""
    try:
        async with asyncio.timeout(LONG_S):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {LONG_S:g} s: {what}") from None


def is_linked(peer: Peer) -> bool:
    return all(peer.links.get(name) for name in peer.links.overlay.chosen())


async def acked_by(peer: Peer) -> set[str]:
    return set((await peer.mesh.recent_broadcasts())[0].acked_ms)


async def until_acked(peer: Peer, names: set[str]) -> None:
    async with asyncio.timeout(LONG_S):
        while not names <= await acked_by(peer):
            await asyncio.sleep(0.05)


async def test_a_red_passes_over_few_links_to_who_is_known_to_nobody_else(
    many: dict[str, Peer],
) -> None:
    """Each knows the addresses of its four only, so the origin's datagrams go to four."""
    for peer in many.values():
        peer.knows(*(many[name] for name in peer.links.overlay.chosen()))
        peer.run()
    await until(lambda: all(is_linked(peer) for peer in many.values()), "all have their links")
    linked = [sum(peer.links.get(name) is not None for name in many) for peer in many.values()]
    assert max(linked) <= 4
    origin = many["n00"]
    red = await origin.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    others = [peer for peer in many.values() if peer is not origin]
    await until(lambda: all(peer.mesh.frozen_by() for peer in others), "all are frozen")
    for peer in others:
        assert [each.key for each in peer.heard if each.key == red.key] == [red.key], "once"
    await until_acked(origin, set(origin.links.overlay.chosen()))


async def test_the_origin_knows_of_everybody_whom_it_has_reached(many: dict[str, Peer]) -> None:
    for peer in many.values():
        peer.knows(*(other for other in many.values() if other is not peer))
        peer.run()
    await until(lambda: all(is_linked(peer) for peer in many.values()), "all have their links")
    origin = many["n07"]
    red = await origin.mesh.broadcast(Red(kind=RedKind.READINESS, reason="gateway: down"))
    await until_acked(origin, set(many) - {"n07"})
    await origin.mesh.clear(red.key, "repaired")
    others = [peer for peer in many.values() if peer is not origin]
    await until(lambda: not any(peer.mesh.frozen_by() for peer in others), "the freeze is over")


async def test_who_goes_away_is_silent_to_all(many: dict[str, Peer]) -> None:
    """Four see their connection end. The others hear it from them, look for themselves, and pass it on."""
    for peer in many.values():
        peer.knows(*(other for other in many.values() if other is not peer))
        peer.run()
    await until(lambda: all(is_linked(peer) for peer in many.values()), "all have their links")
    await asyncio.sleep(SETTLE_S)
    gone = many.pop("n12")
    near = set(gone.links.overlay.chosen())
    await gone.down()
    await until(lambda: all("n12" in peer.liveness.away() for peer in many.values()), "all know")
    far = [peer for name, peer in many.items() if name not in near]
    assert all("n12" not in peer.lost_links for peer in far), "they had no connection with it"
