"""A network of its own: namespaces with one address each, on one bridge. Needs root on Linux, and `ip`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from scripts.debian import need
from shared.command import SYSTEM_PATH, run_command
from shared.errors import CommandError, UnavailableError

TIMEOUT_S = 60.0
SUBNET = "10.213.77"
COUNTERS = Path("/sys/class/net")
SPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
"""Of <sched.h>."""


def can_make_networks() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


class Network:
    """A context: gone when it ends, with all that was set in it. The host itself has no address in it."""

    def __init__(self, names: Sequence[str]) -> None:
        if not can_make_networks():
            raise UnavailableError(
                "network namespaces cannot be made here", remedy="run it as root on Linux"
            )
        self._tag = f"rl{secrets.token_hex(2)}"
        self._numbers = {name: number for number, name in enumerate(names, start=1)}

    def host(self, name: str) -> str:
        return f"{SUBNET}.{self._numbers[name]}"

    def before(self, name: str) -> list[str]:
        """Words before a program that is to run there. It keeps the program's process id."""
        return ["ip", "netns", "exec", self._space(name)]

    def _space(self, name: str) -> str:
        return f"{self._tag}n{self._numbers[name]}"

    def _plug(self, name: str) -> str:
        """The host's end of the cable."""
        return f"{self._tag}v{self._numbers[name]}"

    def socket(self, name: str) -> socket.socket:
        """A TCP socket of this process that is in the other network. Blocks for less than a millisecond. Raises
        OSError."""
        return _socket_in(SPACES / self._space(name))

    async def __aenter__(self) -> Network:
        bridge = f"{self._tag}br"
        lines = [f"link add {bridge} type bridge", f"link set {bridge} up"]
        for name in self._numbers:
            space, plug = self._space(name), self._plug(name)
            lines += [
                f"netns add {space}",
                f"link add {plug} type veth peer name eth0 netns {space}",
                f"link set {plug} master {bridge} up",
            ]
        try:
            await _ip(["-batch", "-"], "\n".join(lines))
            for name in self._numbers:
                inside = [
                    "link set lo up",
                    f"addr add {self.host(name)}/24 brd + dev eth0",
                    "link set eth0 up",
                ]
                await _ip(["-n", self._space(name), "-batch", "-"], "\n".join(inside))
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def _remove(self) -> None:
        """The cables first: a namespace lives on as long as a connection of it, and would keep its end."""
        lines = [
            *(f"link delete {self._plug(name)}" for name in self._numbers),
            *(f"netns delete {self._space(name)}" for name in self._numbers),
            f"link delete {self._tag}br",
        ]
        await _ip(["-force", "-batch", "-"], "\n".join(lines), mild=True)

    async def cut(self, name: str) -> None:
        """Pull its cable."""
        await _ip(["link", "set", self._plug(name), "down"])

    async def mend(self, name: str) -> None:
        await _ip(["link", "set", self._plug(name), "up"])

    async def lose(self, name: str, share: float, *, of: str | None = None) -> None:
        """Of what comes to it, at random, from 0 to 1: of everything, or of what `of` sends. Raises MissingError
        without iptables; netem is not in every kernel."""
        await asyncio.to_thread(need, "iptables", "iptables")
        source = [] if of is None else ["-s", self.host(of)]
        chance = ["-m", "statistic", "--mode", "random", "--probability", f"{share:g}"]
        rule = ["-A", "INPUT", "-i", "eth0", *source, *chance, "-j", "DROP"]
        await _run([*self.before(name), "iptables", "-w", *rule])

    async def lose_nothing(self, name: str) -> None:
        await _run([*self.before(name), "iptables", "-w", "-F", "INPUT"])

    def carried(self, name: str) -> int:
        """Bytes that have gone over its cable, both ways, with Ethernet's heads."""
        folder = COUNTERS / self._plug(name) / "statistics"
        return sum(int((folder / each).read_text()) for each in ("rx_bytes", "tx_bytes"))


def _socket_in(space: Path) -> socket.socket:
    """Made on a thread of its own, which ends: a socket stays in the namespace of the thread that made it."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            with space.open() as there:
                if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"{space}: setns failed")
            made.append(socket.socket())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make, name="socket-in")
    thread.start()
    thread.join()
    match made[0]:
        case OSError() as error:
            raise error
        case found:
            return found


async def _ip(words: Sequence[str], lines: str = "", *, mild: bool = False) -> None:
    await _run(["ip", *words], lines, mild=mild)


async def _run(argv: Sequence[str], lines: str = "", *, mild: bool = False) -> None:
    output = await run_command(
        argv, env={"PATH": SYSTEM_PATH}, timeout_s=TIMEOUT_S, stdin=f"{lines}\n".encode()
    )
    if output.code != 0 and not mild:
        raise CommandError(f"{' '.join(argv[:4])}: {output.last_line()}")
