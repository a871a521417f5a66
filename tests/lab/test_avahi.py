"""mDNS as Debian's avahi speaks it, on real interfaces: hosts that are network namespaces on a bridge."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.debian import MissingError, need
from scripts.lab.network import ROOT, SUBNET, Network

FOUND_AGAIN_S = 60.0
"""Fault 21."""


@contextmanager
def running(argv: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A program until the end of the block, ended by its own process id."""
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(argv, text=True, **options))  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


class Avahi:
    """A host with a system bus and avahi-daemon of its own."""

    def __init__(self, network: Network, stack: ExitStack, folder: Path) -> None:
        self.host = network.host("avahi")
        holder = stack.enter_context(running([*network.before("avahi"), "sleep", "3600"]))
        self._enter = ["nsenter", "--target", str(holder.pid), "--mount", "--net"]
        self._stack, self._holder, self._folder = stack, holder, folder

    async def start(self) -> None:
        await until(lambda: _program(self._holder.pid) == "sleep", "the namespace is entered")
        for argv in (
            ["mount", "-t", "tmpfs", "tmpfs", "/run"],
            ["mkdir", "-p", "/run/dbus", "/run/avahi-daemon"],
        ):
            assert self.run(*argv) is not None
        conf = self._folder / "avahi.conf"
        conf.write_text("[server]\nhost-name=other\nallow-interfaces=eth0\nuse-ipv6=yes\n")
        self._start("dbus-daemon", "--system", "--nofork", "--nopidfile")
        await until(
            lambda: self.run("test", "-S", "/run/dbus/system_bus_socket") is not None, "a bus"
        )
        self._start(
            "avahi-daemon", "--no-drop-root", "--no-rlimits", "--no-chroot", "-f", str(conf)
        )
        await until(
            lambda: self.run("avahi-browse", "-pt", "_none._tcp") is not None, "avahi answers"
        )

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

    def __init__(
        self, stack: ExitStack, network: Network, host: str, folder: Path, *argv: str
    ) -> None:
        self._said = folder / f"{host}.ndjson"
        out = stack.enter_context(self._said.open("w"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        program = [*network.before(host), sys.executable, "-m", "tests.support.mdnsnode"]
        stack.enter_context(running([*program, *argv], stdout=out, env=environment))

    @property
    def known(self) -> dict[str, Any]:
        """Its last whole line."""
        lines = self._said.read_text().rpartition("\n")[0].splitlines()
        said: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return {"hints": [], "alerts": [], "interfaces": [], **said}


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.2)


@pytest.fixture(scope="module", autouse=True)
def avahi_is_here() -> None:
    try:
        for program, package in (
            ("avahi-daemon", "avahi-daemon"),
            ("avahi-browse", "avahi-utils"),
            ("dbus-daemon", "dbus"),
            ("nsenter", "util-linux"),
        ):
            need(program, package)
    except MissingError as error:
        pytest.skip(f"NO AVAHI HERE, INTEROPERATION WITH IT WAS NOT TRIED: {error}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with Network(["avahi", "node", "peer"]) as made:
        yield made


@pytest.fixture
async def avahi(network: Network, stack: ExitStack, tmp_path: Path) -> Avahi:
    made = Avahi(network, stack, tmp_path)
    await made.start()
    return made


async def test_each_sees_the_other_and_a_change_of_address(
    network: Network, avahi: Avahi, stack: ExitStack, tmp_path: Path
) -> None:
    here = network.host("node")
    node = Node(stack, network, "node", tmp_path, "a", "7465", "b")
    await until(lambda: (here, "7465") in avahi.addresses("a-abababab"), "avahi sees the node")
    await until(lambda: "\tfe80::" in avahi.resolve("a-abababab.local"), "its IPv6 address, too")
    await until(lambda: "IPv6" in {each[1] for each in avahi.browse()}, "and by IPv6")
    avahi.publish("b-abababab", 7466)
    await until(
        lambda: f"{avahi.host}:7466" in node.known["hints"], "the node sees what avahi publishes"
    )
    await until(
        lambda: any(
            each.startswith("[fe80::") and each.endswith("%eth0]:7466")
            for each in node.known["hints"]
        ),
        "by IPv6, too, with the interface",
    )
    await network.move("node", f"{SUBNET}.77")
    await until(
        lambda: (f"{SUBNET}.77", "7465") in avahi.addresses("a-abababab"),
        "the new address is told",
        FOUND_AGAIN_S,
    )
    await network.unplug("node")
    await until(
        lambda: not node.known["interfaces"] or node.known["interfaces"] == ["lo"], "unplugged", 40
    )
    await network.plug("node", f"{SUBNET}.78")
    await until(
        lambda: (f"{SUBNET}.78", "7465") in avahi.addresses("a-abababab"),
        "the interface is back",
        FOUND_AGAIN_S,
    )
    assert not node.known["alerts"]


async def test_a_name_that_another_host_claims_is_told_and_ours_stays_to_be_found(
    network: Network, avahi: Avahi, stack: ExitStack, tmp_path: Path
) -> None:
    avahi.publish("a-abababab", 9)
    await until(lambda: avahi.addresses("a-abababab"), "it is claimed")
    claimed = Node(stack, network, "node", tmp_path, "a", "7465", "b")
    other = Node(stack, network, "peer", tmp_path, "b", "7466", "a")
    await until(
        lambda: f"{network.host('node')}:7465" in other.known["hints"],
        "found under the name with a number",
    )
    assert f"{avahi.host}:9" in other.known["hints"], "who it is shows when it is dialled"
    await until(lambda: claimed.known["alerts"], "the operator is told")
    assert "announced as a-abababab-2" in claimed.known["alerts"][0]
