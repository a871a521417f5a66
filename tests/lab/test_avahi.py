"""mDNS as Debian's avahi speaks it, on real interfaces: hosts that are network namespaces on a bridge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scripts.debian import MissingError, need
from tests.support.netlab import ROOT, NetLab, missing, running

FOUND_AGAIN_S = 60.0
"""Fault 21."""


class Avahi:
    """A host with a system bus and avahi-daemon of its own."""

    def __init__(self, lab: NetLab, stack: ExitStack, folder: Path) -> None:
        space = lab.host("avahi", "10.9.0.1/24")
        holder = stack.enter_context(running(["ip", "netns", "exec", space, "sleep", "3600"]))
        self._enter = ["nsenter", "--target", str(holder.pid), "--mount", "--net"]
        self._stack = stack
        _until(lambda: _program(holder.pid) == "sleep", "the namespace is entered")
        for argv in (
            ["mount", "-t", "tmpfs", "tmpfs", "/run"],
            ["mkdir", "-p", "/run/dbus", "/run/avahi-daemon"],
        ):
            subprocess.run([*self._enter, *argv], check=True, timeout=10)
        conf = folder / "avahi.conf"
        conf.write_text("[server]\nhost-name=other\nallow-interfaces=eth0\nuse-ipv6=yes\n")
        self._start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        _until(lambda: self.run("test", "-S", "/run/dbus/system_bus_socket") is not None, "a bus")
        self._start(
            "avahi-daemon", "--no-drop-root", "--no-rlimits", "--no-chroot", "-f", str(conf)
        )
        _until(lambda: self.run("avahi-browse", "-pt", "_none._tcp") is not None, "avahi answers")

    def _start(self, *argv: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._stack.enter_context(running([*self._enter, *argv], **quiet))

    def run(self, *argv: str) -> str | None:
        """What it printed; None when it failed."""
        done = subprocess.run(
            [*self._enter, *argv], check=False, capture_output=True, text=True, timeout=20
        )
        return done.stdout if done.returncode == 0 else None

    def publish(self, instance: str, port: int) -> None:
        self._start("avahi-publish", "-s", instance, "_rollcall._tcp", str(port))

    def browse(self) -> list[list[str]]:
        """Resolved: interface, family, instance, …, address, port, as `avahi-browse -p` orders them."""
        said = self.run("avahi-browse", "-rpt", "_rollcall._tcp") or ""
        return [line.split(";")[1:] for line in said.splitlines() if line.startswith("=")]

    def resolve(self, host: str) -> str:
        return self.run("avahi-resolve-host-name", "-6", host) or ""

    def addresses(self, instance: str) -> set[tuple[str, str]]:
        return {(each[6], each[7]) for each in self.browse() if each[2] == instance}


class Node:
    """`tests.support.mdnsnode` on a host of its own."""

    def __init__(self, stack: ExitStack, space: str, folder: Path, *argv: str) -> None:
        self._said = folder / f"{space}.ndjson"
        out = stack.enter_context(self._said.open("w"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        program = ["ip", "netns", "exec", space, sys.executable, "-m", "tests.support.mdnsnode"]
        stack.enter_context(running([*program, *argv], stdout=out, env=environment))

    @property
    def known(self) -> dict[str, Any]:
        """Its last whole line."""
        lines = self._said.read_text().rpartition("\n")[0].splitlines()
        said: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return {"hints": [], "alerts": [], "interfaces": [], **said}


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if reason := missing():
        pytest.skip(f"NO LAB HERE, interoperation with avahi was not tried: {reason}")
    try:
        for program, package in (
            ("avahi-daemon", "avahi-daemon"),
            ("avahi-browse", "avahi-utils"),
            ("dbus-daemon", "dbus"),
        ):
            need(program, package)
    except MissingError as error:
        pytest.skip(f"NO AVAHI HERE, interoperation with it was not tried: {error}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def lab(stack: ExitStack) -> NetLab:
    made = NetLab()
    stack.callback(made.close)
    return made


@pytest.fixture
def avahi(lab: NetLab, stack: ExitStack, tmp_path: Path) -> Avahi:
    return Avahi(lab, stack, tmp_path)


def test_each_sees_the_other_and_a_change_of_address(
    lab: NetLab, avahi: Avahi, stack: ExitStack, tmp_path: Path
) -> None:
    space = lab.host("node", "10.9.0.2/24")
    node = Node(stack, space, tmp_path, "a", "7465", "b")
    _until(lambda: ("10.9.0.2", "7465") in avahi.addresses("a-abababab"), "avahi sees the node")
    _until(lambda: "\tfe80::" in avahi.resolve("a-abababab.local"), "its IPv6 address, too")
    _until(lambda: "IPv6" in {each[1] for each in avahi.browse()}, "and by IPv6")
    avahi.publish("b-abababab", 7466)
    _until(lambda: "10.9.0.1:7466" in node.known["hints"], "the node sees what avahi publishes")
    _until(
        lambda: any(
            each.startswith("[fe80::") and each.endswith("%eth0]:7466")
            for each in node.known["hints"]
        ),
        "by IPv6, too, with the interface",
    )
    lab.run(space, "ip", "address", "del", "10.9.0.2/24", "dev", "eth0")
    lab.run(space, "ip", "address", "add", "10.9.0.77/24", "dev", "eth0")
    _until(
        lambda: ("10.9.0.77", "7465") in avahi.addresses("a-abababab"),
        "the new address is told",
        FOUND_AGAIN_S,
    )
    lab.run(space, "ip", "link", "del", "eth0")
    _until(
        lambda: not node.known["interfaces"] or node.known["interfaces"] == ["lo"], "unplugged", 40
    )
    lab.plug(space, "node", "10.9.0.78/24")
    _until(
        lambda: ("10.9.0.78", "7465") in avahi.addresses("a-abababab"),
        "the interface is back",
        FOUND_AGAIN_S,
    )
    assert not node.known["alerts"]


def test_a_name_that_another_host_claims_is_told_and_ours_stays_to_be_found(
    lab: NetLab, avahi: Avahi, stack: ExitStack, tmp_path: Path
) -> None:
    avahi.publish("a-abababab", 9)
    _until(lambda: avahi.addresses("a-abababab"), "it is claimed")
    claimed = Node(stack, lab.host("node", "10.9.0.2/24"), tmp_path, "a", "7465", "b")
    other = Node(stack, lab.host("peer", "10.9.0.3/24"), tmp_path, "b", "7466", "a")
    _until(lambda: "10.9.0.2:7465" in other.known["hints"], "found under the name with a number")
    assert "10.9.0.1:9" in other.known["hints"], "who it is shows when it is dialled"
    _until(lambda: claimed.known["alerts"], "the operator is told")
    assert "announced as a-abababab-2" in claimed.known["alerts"][0]
