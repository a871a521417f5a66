"""Peers: can this host hear mDNS, and is a silent network empty or closed to us (MACOS.md, 1 and 2)."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
import time
from dataclasses import dataclass

import psutil

from agent.config import parse_static
from agent.hosting.finding import Finding, Subject, passed, unknown
from shared.readiness import CheckStatus

MDNS_GROUP, MDNS_PORT = "224.0.0.251", 5353
CONNECT_S = 4.0
AT_ONCE_S = 1.0
"""Privacy answers without asking the network; a host that is not there costs an ARP time-out."""
MOST_PEERS = 16


@dataclass(frozen=True)
class Dial:
    """One attempt to connect to a static peer. `code` is the errno, 0 for a connection, None for silence."""

    peer: str
    host: str
    code: int | None
    seconds: float

    @property
    def answered(self) -> bool:
        return self.code in (0, errno.ECONNREFUSED)

    @property
    def shut_out(self) -> bool:
        return self.code == errno.EHOSTUNREACH and self.seconds < AT_ONCE_S


async def look(subject: Subject) -> list[Finding]:
    config = subject.config
    if config is None:
        return [unknown(name, "agent.toml cannot be used") for name in ("net.mdns", "net.peers")]
    heard = await asyncio.to_thread(multicast_addresses, config.peers.interfaces)
    static = [parse_static(text) for text in config.peers.static[:MOST_PEERS]]
    dials = await asyncio.gather(*(_dial(*peer) for peer in static))
    exempt = subject.host.is_mac and not subject.in_job
    return [
        judge_multicast(heard, wanted=config.peers.mdns, has_static=bool(static)),
        judge_peers(list(dials), own_networks(), from_terminal=exempt),
    ]


def multicast_addresses(wanted: list[str]) -> dict[str, str]:
    """Addresses of interfaces, each with why it cannot take part in mDNS, or nothing. Blocking."""
    found = {}
    for address in wanted or [str(each.ip) for each in own_networks()]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if hasattr(socket, "SO_REUSEPORT"):
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("", MDNS_PORT))
                member = struct.pack(
                    "4s4s", socket.inet_aton(MDNS_GROUP), socket.inet_aton(address)
                )
                listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                found[address] = ""
            except OSError as error:
                found[address] = error.strerror or str(error)
    return found


def judge_multicast(heard: dict[str, str], *, wanted: bool, has_static: bool) -> Finding:
    good = [address for address, why in heard.items() if not why]
    if not wanted:
        return passed("net.mdns", "switched off in agent.toml")
    if good:
        return passed("net.mdns", f"on {', '.join(good)}")
    reason = "; ".join(f"{address}: {why}" for address, why in heard.items()) or "no LAN interface"
    return Finding(
        "net.mdns",
        CheckStatus.WARN if has_static else CheckStatus.FAIL,
        "no interface can hear peers",
        reason,
        "name interfaces in peers.interfaces, or peers in peers.static",
    )


async def _dial(name: str, host: str, port: int) -> Dial:
    began = time.monotonic()
    code: int | None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        code = 0
    except TimeoutError:
        code = None
    except OSError as error:
        code = error.errno if error.errno is not None else -1
    return Dial(name, host, code, time.monotonic() - began)


def judge_peers(
    dials: list[Dial], networks: list[ipaddress.IPv4Interface], *, from_terminal: bool
) -> Finding:
    """Blocked: peers on our own network are unreachable *at once*. Empty: nobody answers, slowly."""
    if not dials:
        return unknown("net.peers", "no static peers in agent.toml to try")
    answered = [dial for dial in dials if dial.answered]
    shut_out = [dial for dial in dials if dial.shut_out and _is_near(dial.host, networks)]
    observed = f"{len(answered)} of {len(dials)} answered"
    if shut_out and not answered:
        names = ", ".join(dial.peer for dial in shut_out)
        return Finding(
            "net.peers",
            CheckStatus.FAIL,
            "blocked",
            f"{names}: on this network, and refused by this host at once (EHOSTUNREACH): local network"
            " privacy, or a packet filter",
            "run the agent as a daemon of root (sudo rollcall-agent install); a LaunchAgent has to be allowed"
            " in System Settings, Privacy & Security, Local Network",
        )
    if not answered:
        said = ", ".join(f"{dial.peer} {_spoken(dial.code)}" for dial in dials)
        reason = f"the network is open, and nobody is there: {said}"
        return Finding("net.peers", CheckStatus.WARN, "empty", reason, "are the peers up?")
    if from_terminal:
        return Finding(
            "net.peers",
            CheckStatus.UNKNOWN,
            f"{observed}, from a terminal",
            "a terminal and SSH are exempt from local network privacy: this proves nothing of a job",
            "run preflight as the agent's job, or look at: rollcall-agent status",
        )
    return passed("net.peers", observed)


def own_networks() -> list[ipaddress.IPv4Interface]:
    return [
        ipaddress.IPv4Interface(f"{address.address}/{address.netmask}")
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
        and address.netmask
        and not address.address.startswith("127.")
    ]


def _is_near(host: str, networks: list[ipaddress.IPv4Interface]) -> bool:
    """Names count as near: only an address can be told to be far."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    return any(address in each.network for each in networks)


def _spoken(code: int | None) -> str:
    if code is None:
        return "is silent"
    return errno.errorcode.get(code, f"error {code}")
