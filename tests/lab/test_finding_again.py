"""Fault 21 on real interfaces: hosts that change their address, lose their interface, or have IPv6 alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.peers.listing import PeerLine, PeersReport, PeerState
from tests.support.netlab import ROOT, NetLab, missing, running
from tests.support.trustkit import TestFleet, make_fleet

FOUND_AGAIN_S = 60.0


class Host:
    """A node of the mesh in a namespace of its own, with nothing but mDNS to go by."""

    def __init__(self, lab: NetLab, fleet: TestFleet, name: str, address: str) -> None:
        self.name, self._lab = name, lab
        self.space = lab.host(name, address)
        self._home = fleet.write(name).home
        self._said = fleet.root / f"{name}.ndjson"

    def start(self, stack: ExitStack) -> None:
        program = [
            "ip",
            "netns",
            "exec",
            self.space,
            sys.executable,
            "-m",
            "tests.support.meshnode",
        ]
        stack.enter_context(
            running(
                [*program, str(self._home)],
                stdout=stack.enter_context(self._said.open("w")),
                stderr=stack.enter_context(self._said.with_suffix(".log").open("w")),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )

    def sees(self, other: Host) -> PeerLine | None:
        """What its last line says of the other; None before its first."""
        lines = self._said.read_bytes().rpartition(b"\n")[0].splitlines()
        if not lines:
            return None
        found = PeersReport.from_bytes(lines[-1]).peers
        return next(each for each in found if each.name == other.name)

    def ip(self, *words: str) -> None:
        self._lab.run(self.space, "ip", *words)


def linked(a: Host, b: Host) -> bool:
    lines = (a.sees(b), b.sees(a))
    return all(each is not None and each.state is PeerState.LINKED for each in lines)


def until(condition: Callable[[], object], what: str, seconds: float) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if reason := missing():
        pytest.skip(f"NO LAB HERE, changes of the network were not tried: {reason}")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with ExitStack() as stack:
        lab = NetLab()
        stack.callback(lab.close)
        fleet = make_fleet(tmp_path, ("a", "b"))
        a = Host(lab, fleet, "a", "10.9.0.1/24")
        b = Host(lab, fleet, "b", "10.9.0.2/24")
        for host in (a, b):
            host.start(stack)
        try:
            until(lambda: linked(a, b), "they find each other", 20)
            yield a, b
        except BaseException:
            for log in tmp_path.glob("*.log"):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()[-4000:]}\n")
            raise


def test_found_again_after_a_change_of_address_and_of_the_interface(
    hosts: tuple[Host, Host],
) -> None:
    a, b = hosts
    b.ip("address", "del", "10.9.0.2/24", "dev", "eth0")
    b.ip("-6", "address", "flush", "dev", "eth0")
    b.ip("address", "add", "10.9.0.77/24", "dev", "eth0")
    until(
        lambda: "10.9.0.77:" in _where(a, b) and linked(a, b), "at its new address", FOUND_AGAIN_S
    )
    b.ip("link", "del", "eth0")
    until(lambda: not linked(a, b), "the link is lost", FOUND_AGAIN_S)
    b._lab.plug(b.space, "b", "10.9.0.78/24")
    until(lambda: linked(a, b), "the interface is back", FOUND_AGAIN_S)


def test_ipv6_of_the_link_alone_is_enough(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    for host, address in ((a, "10.9.0.1/24"), (b, "10.9.0.2/24")):
        host.ip("address", "del", address, "dev", "eth0")
    until(
        lambda: linked(a, b) and any("fe80::" in w for w in (_where(a, b), _where(b, a))),
        "linked by IPv6",
        FOUND_AGAIN_S,
    )


def _where(a: Host, b: Host) -> str:
    line = a.sees(b)
    return "" if line is None else line.address
