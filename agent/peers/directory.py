"""Where peers might be. Hints are addresses only; identity comes from mutual TLS and the roster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_HINTS_PER_PEER = 8
MAX_PEERS = 1024
KEPT_GOOD = 2


class Found(StrEnum):
    MDNS = "mdns"
    STATIC = "static"


@dataclass(frozen=True)
class Hint:
    host: str
    port: int
    found: Found


def netloc(hint: Hint) -> str:
    """Host and port as they stand in a URL."""
    return f"[{hint.host}]:{hint.port}" if ":" in hint.host else f"{hint.host}:{hint.port}"


class Directory:
    """Hints by node name. Those that anyone on the network can give are capped; a static one, and the one
    that worked last, are never pushed out by them."""

    def __init__(self) -> None:
        self._hints: dict[str, list[Hint]] = {}
        self._reached: dict[str, Hint] = {}
        self._good: dict[str, list[Hint]] = {}
        """Where a peer has answered before, the last first: kept also while it does not."""

    def learn(self, name: str, hint: Hint) -> None:
        if name not in self._hints and len(self._hints) >= MAX_PEERS:
            return
        known = self._hints.setdefault(name, [])
        if hint in known:
            return
        known.insert(0, hint)
        kept = (*self._good.get(name, ()), *(each for each in known if each.found is Found.STATIC))
        loose = [each for each in known if each not in kept]
        for each in loose[MAX_HINTS_PER_PEER:]:
            known.remove(each)

    def candidates(self, name: str) -> list[Hint]:
        """Addresses to try: those that were good before, then static ones, then the rest."""
        known, good = self._hints.get(name, []), self._good.get(name, [])
        first = [hint for hint in good if hint in known]
        static = [hint for hint in known if hint.found is Found.STATIC]
        return list(dict.fromkeys([*first, *static, *known]))

    def reached(self, name: str, hint: Hint) -> None:
        self._reached[name] = hint
        others = [each for each in self._good.get(name, []) if each != hint]
        self._good[name] = [hint, *others][:KEPT_GOOD]

    def lost(self, name: str) -> None:
        self._reached.pop(name, None)

    def how(self, name: str) -> str:
        """`mdns` or `static` for a peer that was reached, empty for one that was not."""
        hint = self._reached.get(name)
        return hint.found if hint else ""
