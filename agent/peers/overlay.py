"""With which peers a node keeps a connection: with all of a small fleet, with a few of a large one.

In a large one the nodes stand in several rings, in each of them in another order, and a node keeps a connection with
both its neighbours in each. The order is that of hashes over ring and name, so both ends come to the same without a
word. One ring holds together without any one node; several are a random graph in which everybody is a few hops
away. Whoever joins takes one place in each ring and moves nobody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from agent.trust import Trust
from shared.roster import Roster


def neighbours(me: str, others: Collection[str], links: int) -> frozenset[str]:
    """At most `links` of the others, which is even: two in each of half as many rings."""
    found: set[str] = set()
    for ring in range(links // 2):
        places = sorted((_place(ring, name), name) for name in {me, *others})
        here = places.index((_place(ring, me), me))
        found |= {places[here - 1][1], places[(here + 1) % len(places)][1]}
    return frozenset(found - {me})


def _place(ring: int, name: str) -> bytes:
    return hashlib.sha256(f"{ring} {name}".encode()).digest()


class Overlay:
    """For the roster of now. `full_mesh_below` counts this node as well."""

    def __init__(self, trust: Trust, *, links: int, full_mesh_below: int) -> None:
        self._trust, self._links, self._full_mesh_below = trust, links, full_mesh_below
        self._known: tuple[Roster, list[str]] | None = None

    @property
    def is_full(self) -> bool:
        """Whether every pair keeps a connection."""
        return len(self._trust.peer_names()) + 1 < self._full_mesh_below

    def chosen(self) -> list[str]:
        """The peers with which this node keeps one, in the order of the roster."""
        roster, names = self._trust.roster, self._trust.peer_names()
        if self.is_full:
            return names
        if self._known is None or self._known[0] is not roster:
            near = neighbours(self._trust.name, names, self._links)
            self._known = roster, [name for name in names if name in near]
        return self._known[1]
