"""Where peers might be. Hints are addresses only; identity comes from mutual TLS and the roster."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_HINTS_PER_PEER = 8
"""Of each source that others can feed."""
MAX_PEERS = 1024
KEPT_GOOD = 2
MAX_FAILURES = 16
MAX_RESOLVED = 8


class Found(StrEnum):
    """Who gave an address, in the order in which they are tried; `accepted` is a peer that dialled us."""

    STATIC = "static"
    MDNS = "mdns"
    COORDINATOR = "coordinator"
    PEER = "peer"
    REMEMBERED = "remembered"
    ACCEPTED = "accepted"


ORDER = (Found.STATIC, Found.MDNS, Found.COORDINATOR, Found.PEER, Found.REMEMBERED)


@dataclass(frozen=True)
class Hint:
    host: str
    port: int
    found: Found

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True)
class Failure:
    """Why an address did not lead to the peer, and when that was found out (wall clock)."""

    address: str
    reason: str
    at: float


@dataclass(frozen=True)
class Reached:
    hint: Hint
    since: float


def netloc(hint: Hint) -> str:
    """Host and port as they stand in a URL."""
    return join_address(hint.host, hint.port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str, found: Found) -> Hint | None:
    """What `join_address` made of a literal address; None for what cannot be dialled as one. A scope means
    something on one host only, so that an address with one is nobody else's hint."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    nowhere = address.is_unspecified or address.is_multicast or "%" in host
    if nowhere or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        return None
    return Hint(str(address), int(port), found)


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def plain_host(host: str) -> str:
    """The address of a peer as a socket of both families tells it, an IPv4 one as such."""
    return host.removeprefix("::ffff:") if "." in host else host


class Directory:
    """Hints by node name. Those that others can give are capped for each source, so that no source pushes out
    those of another; a static one, and the ones that worked last, are never pushed out."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._hints: dict[str, list[Hint]] = {}
        self._reached: dict[str, Reached] = {}
        self._good: dict[str, list[Hint]] = {}
        """Where a peer has answered before, the last first: kept also while it does not."""
        self._last: dict[str, float] = {}
        self._failures: dict[str, dict[tuple[str, int], Failure]] = {}
        self._resolved: dict[str, list[str]] = {}
        self._own: set[str] = set()

    def is_us(self, addresses: Iterable[str]) -> None:
        """This node's own, as `join_address` makes them: hosts with the same container network tell each other
        addresses that lead everybody to himself."""
        self._own = set(addresses)

    def learn(self, name: str, hint: Hint) -> None:
        if name not in self._hints and len(self._hints) >= MAX_PEERS:
            return
        if netloc(hint) in self._own:
            return
        known = self._hints.setdefault(name, [])
        if hint in known:
            return
        known.insert(0, hint)
        if hint.found is Found.STATIC:
            return
        good = self._good.get(name, ())
        loose = [each for each in known if each.found is hint.found and each not in good]
        for each in loose[MAX_HINTS_PER_PEER:]:
            known.remove(each)

    def replace(self, name: str, found: Found, hints: Iterable[Hint]) -> bool:
        """What a source says now is all that it says; an address that was good stays. Whether one is new."""
        known, good = self._hints.get(name, []), self._good.get(name, ())
        fresh = list(dict.fromkeys(hints))[:MAX_HINTS_PER_PEER]
        new = [hint for hint in fresh if hint not in known]
        for hint in [each for each in known if each.found is found]:
            if hint not in fresh and hint not in good:
                known.remove(hint)
        for hint in reversed(new):
            self.learn(name, hint)
        return bool(new)

    def resolve(self, host: str, addresses: list[str]) -> None:
        """What a host name that an operator wrote stands for, until it is looked up again."""
        self._resolved[host] = addresses[:MAX_RESOLVED]

    def names_to_resolve(self) -> list[str]:
        hosts = (hint.host for known in self._hints.values() for hint in known)
        return list(dict.fromkeys(host for host in hosts if not is_literal(host)))

    def candidates(self, name: str) -> list[Hint]:
        """Addresses to try, each once: those that were good before, then by source."""
        known = self._known(name)
        first = [hint for hint in self._good.get(name, []) if hint in known]
        by_source = [hint for found in ORDER for hint in known if hint.found is found]
        each_once: dict[tuple[str, int], Hint] = {}
        for hint in (*first, *by_source):
            each_once.setdefault(hint.address, hint)
        return list(each_once.values())

    def _known(self, name: str) -> list[Hint]:
        """Host names that have been looked up stand for their addresses."""
        found = []
        for hint in self._hints.get(name, []):
            addresses = self._resolved.get(hint.host) or [hint.host]
            found += [Hint(address, hint.port, hint.found) for address in addresses]
        return found

    def hints(self, name: str) -> list[Hint]:
        """All that is known, an address once for each source that gave it."""
        return [hint for found in ORDER for hint in self._known(name) if hint.found is found]

    def reached(self, name: str, hint: Hint) -> None:
        """It answered there, and proved who it is."""
        now = self._now()
        self._reached[name] = Reached(hint, now)
        self._last[name] = now
        self._keep_good(name, hint)
        self._failures.pop(name, None)

    def accepted(self, name: str, host: str) -> None:
        """It came to us from this host, and proved who it is. Its port there is none that can be dialled."""
        same = (hint for hint in self.candidates(name) if hint.host == host)
        now = self._now()
        self._reached[name] = Reached(next(same, Hint(host, 0, Found.ACCEPTED)), now)
        self._last[name] = now
        self._failures.pop(name, None)

    def place(self, name: str, hint: Hint) -> None:
        """What a peer that came to us says of itself, where that is the host it came from: good for dialling."""
        reached = self._reached.get(name)
        if reached and reached.hint.found is Found.ACCEPTED and reached.hint.host == hint.host:
            self._reached[name] = Reached(replace(reached.hint, port=hint.port), reached.since)
            self._keep_good(name, hint)

    def _keep_good(self, name: str, hint: Hint) -> None:
        others = [each for each in self._good.get(name, []) if each.address != hint.address]
        self._good[name] = [hint, *others][:KEPT_GOOD]

    def failed(self, name: str, hint: Hint, reason: str) -> None:
        failures = self._failures.setdefault(name, {})
        failures.pop(hint.address, None)
        failures[hint.address] = Failure(netloc(hint), reason, self._now())
        if len(failures) > MAX_FAILURES:
            del failures[next(iter(failures))]

    def lost(self, name: str) -> None:
        if self._reached.pop(name, None) is not None:
            self._last[name] = self._now()

    def reach(self, name: str) -> Reached | None:
        """Where it is reached now, and since when; None while it is not."""
        return self._reached.get(name)

    def last_reached(self, name: str) -> float | None:
        return self._now() if name in self._reached else self._last.get(name)

    def failures(self, name: str) -> list[Failure]:
        """Of the last attempts since it was reached, the newest first."""
        return list(self._failures.get(name, {}).values())[::-1]

    def good(self, name: str) -> list[Hint]:
        """Where it answered before, the last first."""
        return list(self._good.get(name, ()))

    def recall(self, name: str, hints: list[Hint], at: float) -> None:
        """What was known to be good before a restart, and when."""
        for hint in reversed(hints[:KEPT_GOOD]):
            self.learn(name, hint)
        self._last.setdefault(name, at)

    def how(self, name: str) -> str:
        """Who gave the address at which a peer was reached, empty for one that is not."""
        reached = self._reached.get(name)
        return reached.hint.found if reached else ""
