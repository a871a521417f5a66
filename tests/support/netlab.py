"""Hosts of their own on one machine: network namespaces on a bridge, for tests that need real interfaces."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30


class NetLab:
    """`host` makes one: a namespace with a loopback and an interface `eth0`, joined to all others by a bridge
    that is in a namespace of its own, so that nothing of the machine's network is touched."""

    def __init__(self) -> None:
        self._name = f"rc{secrets.token_hex(3)}"
        self._made: list[str] = []
        self._run("ip", "netns", "add", self._switch)
        self._made.append(self._switch)
        self.run(self._switch, "ip", "link", "add", "br0", "type", "bridge")
        self.run(self._switch, "ip", "link", "set", "br0", "up")

    @property
    def _switch(self) -> str:
        return f"{self._name}-sw"

    def host(self, name: str, address: str) -> str:
        """The namespace's name. `address` has its length, `10.9.0.1/24`."""
        space = f"{self._name}-{name}"
        self._run("ip", "netns", "add", space)
        self._made.append(space)
        self.run(space, "ip", "link", "set", "lo", "up")
        self.plug(space, name, address)
        return space

    def plug(self, space: str, name: str, address: str) -> None:
        """Give the host its interface, as after a cable was put in."""
        port = ("name", f"p-{name}", "netns", self._switch)
        self.run(space, "ip", "link", "add", "eth0", "type", "veth", "peer", *port)
        self.run(self._switch, "ip", "link", "set", f"p-{name}", "master", "br0", "up")
        self.run(space, "ip", "address", "add", address, "dev", "eth0")
        self.run(space, "ip", "link", "set", "eth0", "up")

    def run(self, space: str, *argv: str) -> str:
        return self._run("ip", "netns", "exec", space, *argv)

    def _run(self, *argv: str) -> str:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode:
            raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        for space in self._made:
            subprocess.run(["ip", "netns", "del", space], check=False, timeout=PATIENCE_S)


class LabError(Exception):
    """Namespaces cannot be made here, or something in one failed."""


def missing() -> str:
    """Why there can be no lab here; empty where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "ip (iproute2) or nsenter (util-linux) is not here"
    try:
        NetLab().close()
    except (LabError, OSError) as error:
        return f"no network namespace can be made: {error}"
    return ""


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
