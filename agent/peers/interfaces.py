"""This host's network interfaces: which of them discovery uses, and the addresses to be reached at."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from agent.peers.directory import is_literal, join_address
from shared.report import MAX_ADDRESSES

log = structlog.get_logger()

FOUR = "0.0.0.0"  # noqa: S104 - compared with, not bound to
ANYWHERE = (FOUR, "::")
APPLES_OWN = ("awdl", "llw")
"""What a Mac has for AirDrop and the like: no LAN."""


@dataclass(frozen=True)
class Interface:
    """`addresses` of both families; an IPv6 address of the link carries the interface's name, `fe80::1%en0`.
    `carries` says that it is one for multicast between hosts: neither loopback nor a tunnel."""

    name: str
    index: int
    addresses: tuple[str, ...]
    carries: bool


Reader = Callable[[], Sequence[Interface]]


def read_interfaces() -> list[Interface]:
    """Those that are up and have an address that can be used now; none while the system does not say."""
    import psutil  # loaded by the agent anyway; named here because only this function needs it

    try:
        states, named = psutil.net_if_stats(), psutil.net_if_addrs()
    except OSError as error:
        log.warning("interfaces cannot be read", reason=str(error))
        return []
    found = []
    for name, entries in named.items():
        if (state := states.get(name)) is None or not state.isup:
            continue
        addresses = tuple(
            _scoped(each.address, name)
            for each in entries
            if each.family == socket.AF_INET or _is_usable(each.family, each.address, name)
        )
        flags = set(state.flags.split(","))
        tunnel = flags & {"loopback", "pointopoint", "pointtopoint"} or name.startswith(APPLES_OWN)
        carries = "multicast" in flags and not tunnel
        if addresses and (index := _index_of(name)):
            found.append(Interface(name, index, addresses, carries))
    return found


def _index_of(name: str) -> int:
    """0 for one that has gone meanwhile."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _is_usable(family: int, address: str, name: str) -> bool:
    """An IPv6 address is tentative for a second or two after it came: nothing can be bound to it, and multicast
    would go without it from then on."""
    if family != socket.AF_INET6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
            scope = _index_of(name) if ipaddress.ip_address(_plain(address)).is_link_local else 0
            trial.bind((_plain(address), 0, 0, scope))
    except OSError:
        return False
    return True


def _scoped(address: str, name: str) -> str:
    plain = address.partition("%")[0]
    return (
        f"{plain}%{name}" if ipaddress.ip_address(plain).is_link_local and ":" in plain else plain
    )


def choose(found: Sequence[Interface], wanted: Sequence[str]) -> list[Interface]:
    """By name or by address, as an operator wrote them; without a word of his all that carry multicast, and
    where there is none of these the loopback. An address leaves the interface's others out."""
    if not wanted:
        usual = [each for each in found if each.carries]
        return usual or [each for each in found if _is_loopback(each)]
    chosen = []
    for each in found:
        named = [
            address for address in each.addresses if address in wanted or _plain(address) in wanted
        ]
        if each.name in wanted:
            chosen.append(each)
        elif named:
            chosen.append(Interface(each.name, each.index, tuple(named), each.carries))
    return chosen


def _plain(address: str) -> str:
    return address.partition("%")[0]


def _is_loopback(interface: Interface) -> bool:
    return any(ipaddress.ip_address(each).is_loopback for each in interface.addresses)


def told_addresses(chosen: Sequence[Interface], *, host: str, advertise: str | None) -> list[str]:
    """Where peers shall dial: what the operator says, else the one address that the door listens on, else
    those of the chosen interfaces: IPv4, then IPv6, then IPv6 of the link."""
    if advertise is not None:
        return [advertise]
    if is_literal(host) and host not in ANYWHERE:
        return [host]
    addresses = [address for each in chosen for address in each.addresses]
    if host == FOUR:
        addresses = [each for each in addresses if ":" not in each]
    return sorted(dict.fromkeys(addresses), key=_rank)[:MAX_ADDRESSES]


def _rank(address: str) -> int:
    return 0 if ":" not in address else 2 if "%" in address else 1


def reachable_at(addresses: Iterable[str], port: int) -> list[str]:
    """For the coordinator and for peers: without those that mean something on one link only."""
    return [join_address(each, port) for each in addresses if "%" not in each]
