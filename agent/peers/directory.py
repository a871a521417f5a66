"""Where peers might be. Hints are addresses only; identity comes from mutual TLS and the roster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_HINTS_PER_PEER = 8
MAX_PEERS = 1024


class Found(StrEnum):
    MDNS = "mdns"
    STATIC = "static"


@dataclass(frozen=True)
class Hint:
    host: str
    port: int
    found: Found


class Directory:
    """Hints by node name. Those that anyone on the network can give are capped; a static one, and the one
    that worked last, are never pushed out by them."""

    def __init__(self) -> None:
        self._hints: dict[str, list[Hint]] = {}
        self._reached: dict[str, Hint] = {}

    def learn(self, name: str, hint: Hint) -> None:
        if name not in self._hints and len(self._hints) >= MAX_PEERS:
            return
        known = self._hints.setdefault(name, [])
        if hint in known:
            return
        known.insert(0, hint)
        kept = (self._reached.get(name), *(each for each in known if each.found is Found.STATIC))
        loose = [each for each in known if each not in kept]
        for each in loose[MAX_HINTS_PER_PEER:]:
            known.remove(each)

    def candidates(self, name: str) -> list[Hint]:
        """Addresses to try, the last good one first."""
        known = self._hints.get(name, [])
        last = self._reached.get(name)
        if last is None or last not in known:
            return list(known)
        return [last, *(hint for hint in known if hint != last)]

    def reached(self, name: str, hint: Hint) -> None:
        self._reached[name] = hint

    def lost(self, name: str) -> None:
        self._reached.pop(name, None)

    def how(self, name: str) -> str:
        """`mdns` or `static` for a peer that was reached, empty for one that was not."""
        hint = self._reached.get(name)
        return hint.found if hint else ""
