"""A network of its own: hosts that are namespaces, on a switch that is one too, so that nothing of the machine's own
network is touched. Needs root on Linux, and `ip`."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.debian import need
from shared.command import SYSTEM_PATH, run_command
from shared.errors import CommandError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
SUBNET = "10.213.77"
SPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
"""Of <sched.h>."""
BRIDGES = ("br0", "br1")
"""Two halves of a network that fell apart; all are on the first where nothing is said."""


def can_make_networks() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


def why_no_networks() -> str:
    """Why there can be none here; empty where there can. Tried, not guessed: a container's root may lack the right.
    Blocking."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if not can_make_networks():
        return "they need root, and ip (Debian's iproute2)"
    space = f"rl{secrets.token_hex(4)}"
    done = subprocess.run(
        ["ip", "netns", "add", space], capture_output=True, text=True, check=False
    )
    subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
    return f"no network namespace can be made: {done.stderr.strip()}" if done.returncode else ""


class Network:
    """A context: gone when it ends, with all that was set in it. Each host has one interface, `eth0`."""

    def __init__(self, names: Sequence[str]) -> None:
        if not can_make_networks():
            raise UnavailableError(
                "network namespaces cannot be made here", remedy="run it as root on Linux"
            )
        self._tag = f"rl{secrets.token_hex(2)}"
        self._numbers = {name: number for number, name in enumerate(names, start=1)}

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    def host(self, name: str) -> str:
        """Its address, until it is given another."""
        return f"{SUBNET}.{self._numbers[name]}"

    def before(self, name: str) -> list[str]:
        """Words before a program that is to run there. It keeps the program's process id."""
        return ["ip", "netns", "exec", self._space(name)]

    def _space(self, name: str) -> str:
        return f"{self._tag}n{self._numbers[name]}"

    @property
    def _switch(self) -> str:
        return f"{self._tag}sw"

    def _plug(self, name: str) -> str:
        """The switch's end of the cable."""
        return f"{self._tag}v{self._numbers[name]}"

    def socket(self, name: str) -> socket.socket:
        """A TCP socket of this process that is in the other network. Blocks for less than a millisecond. Raises
        OSError."""
        return _socket_in(SPACES / self._space(name))

    async def __aenter__(self) -> Network:
        spaces = [self._switch, *map(self._space, self._numbers)]
        try:
            await _ip(["-batch", "-"], [f"netns add {space}" for space in spaces])
            await self._on_switch(
                line
                for bridge in BRIDGES
                for line in (f"link add {bridge} type bridge", f"link set {bridge} up")
            )
            await asyncio.gather(*(self._start(name) for name in self._numbers))
        except BaseException:
            await self._remove()
            raise
        return self

    async def _start(self, name: str) -> None:
        await _ip(["-n", self._space(name), "link", "set", "lo", "up"])
        await self.plug(name)

    async def plug(self, name: str, address: str | None = None) -> None:
        """Give it its interface, as a cable that is put in does."""
        space, plug = self._space(name), self._plug(name)
        await self._on_switch(
            [
                f"link add {plug} type veth peer name eth0 netns {space}",
                f"link set {plug} master {BRIDGES[0]} up",
            ]
        )
        await _ip(
            ["-n", space, "-batch", "-"],
            [f"addr add {address or self.host(name)}/24 brd + dev eth0", "link set eth0 up"],
        )

    async def unplug(self, name: str) -> None:
        """Its interface is gone, with all addresses."""
        await _ip(["-n", self._space(name), "link", "delete", "eth0"])

    async def move(self, name: str, address: str) -> None:
        """Another IPv4 address in place of that it has; those of IPv6 stay."""
        await self.forget(name, 4)
        words = ["addr", "add", f"{address}/24", "brd", "+", "dev", "eth0"]
        await _ip(["-n", self._space(name), *words])

    async def forget(self, name: str, family: int) -> None:
        """All its addresses of IPv4 (4) or IPv6 (6)."""
        await _ip(["-n", self._space(name), f"-{family}", "addr", "flush", "dev", "eth0"])

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def _remove(self) -> None:
        """The cables first: a namespace lives on as long as a connection of it, and would keep its end."""
        await self._on_switch(
            (f"link delete {self._plug(name)}" for name in self._numbers), mild=True
        )
        spaces = [self._switch, *map(self._space, self._numbers)]
        lines = [f"netns delete {space}" for space in spaces]
        await _ip(["-force", "-batch", "-"], lines, mild=True)

    async def _on_switch(self, lines: Iterable[str], *, mild: bool = False) -> None:
        force = ["-force"] if mild else []
        await _ip([*force, "-n", self._switch, "-batch", "-"], lines, mild=mild)

    async def cut(self, name: str) -> None:
        """Pull its cable at the switch."""
        await self._on_switch([f"link set {self._plug(name)} down"])

    async def mend(self, name: str) -> None:
        await self._on_switch([f"link set {self._plug(name)} up"])

    async def split(self, names: Sequence[str]) -> None:
        """These from all others."""
        await self._attach(names, BRIDGES[1])

    async def join(self) -> None:
        """All are on one network again."""
        await self._attach(self.names, BRIDGES[0])

    async def _attach(self, names: Sequence[str], bridge: str) -> None:
        await self._on_switch(f"link set {self._plug(name)} master {bridge}" for name in names)

    @asynccontextmanager
    async def rough(self, words: Sequence[str]) -> AsyncIterator[None]:
        """Inside, `scripts.lab.rough` with these options carries the frames of all, in place of the switch."""
        await self._on_switch(f"link set {self._plug(name)} nomaster" for name in self.names)
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self._switch, sys.executable, "-m", "scripts.lab.rough"),
            *words,
            *(self._plug(name) for name in self.names),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if process.stdout is None or not await process.stdout.readline():
                    raise UnavailableError("the rough switch did not start")
            yield
            if process.returncode is not None:
                raise UnavailableError(f"the rough switch ended with {process.returncode}")
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()
            await self.join()

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

    async def carried(self, name: str) -> int:
        """Bytes that have gone over its cable, both ways, with Ethernet's heads."""
        words = ["ip", "-n", self._switch, "-s", "-j", "link", "show", "dev", self._plug(name)]
        (found,) = json.loads(await _run(words))
        return sum(int(found["stats64"][way]["bytes"]) for way in ("rx", "tx"))


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


async def _ip(words: Sequence[str], lines: Iterable[str] = (), *, mild: bool = False) -> None:
    await _run(["ip", *words], "\n".join(lines), mild=mild)


async def _run(argv: Sequence[str], lines: str = "", *, mild: bool = False) -> str:
    """What it printed."""
    output = await run_command(
        argv, env={"PATH": SYSTEM_PATH}, timeout_s=TIMEOUT_S, stdin=f"{lines}\n".encode()
    )
    if output.code != 0 and not mild:
        said = output.stderr.decode(errors="replace").partition("\n")[0]
        raise CommandError(f"{' '.join(argv[:4])}: {said or output.code}")
    return output.stdout.decode()
