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
    """Hints by node name, capped, the ones that worked first. Names not in the roster are never kept."""

    def __init__(self) -> None:
        self._hints: dict[str, list[Hint]] = {}
        self._reached: dict[str, Hint] = {}

    def learn(self, name: str, hint: Hint) -> None:
        if name not in self._hints and len(self._hints) >= MAX_PEERS:
            return
        known = self._hints.setdefault(name, [])
        if hint not in known:
            known.insert(0, hint)
            del known[MAX_HINTS_PER_PEER:]

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
