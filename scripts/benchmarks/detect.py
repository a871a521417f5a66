"""Seconds until all others know that a node is gone, beside serf, in turn on the same addresses.

- `kill_vs_serf`, `kill_n3_vs_serf`: one process of ten, and of three, gets SIGKILL, on loopback.
- `cut_vs_serf`, `cut_n3_vs_serf`: its cable is pulled, in network namespaces; left out, and said so, where they
  cannot be made.
- `idle_bytes_vs_serf`: bytes per node and second, both ways, while nothing happens, in the network of ten.

Ours: the mesh alone, with its own settings; silent to all others is when the last of them says so. serf: its own
settings for a LAN; failed for all is when the last of them logs it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks.frame import Options, Sample
from scripts.debian import need
from scripts.lab.homes import make_homes
from scripts.lab.network import Network, can_make_networks
from scripts.lab.process import NodeProcess
from scripts.lab.serf import SerfAgent
from scripts.minifleet.ports import free_port
from shared.terminal import say

SIZES = (3, 10)
UP_S = 120.0
SETTLE_S = 8.0
"""After all are connected: nobody accuses in its first seconds, and serf's first exchanges are over."""
IDLE_S = 10.0
GONE_S = 120.0
PORT, RPC_PORT = 7465, 7373


@dataclass(frozen=True)
class Place:
    """Where each node runs: its address, and the words before its program."""

    addresses: Mapping[str, tuple[str, int]]
    rpc_ports: Mapping[str, int]
    before: Callable[[str], Sequence[str]]

    @property
    def names(self) -> list[str]:
        return list(self.addresses)

    @property
    def victim(self) -> str:
        return self.names[-1]


def loopback(size: int) -> Place:
    names = [f"n{number}" for number in range(size)]
    ports = {name: ("127.0.0.1", free_port()) for name in names}
    return Place(ports, {name: free_port() for name in names}, lambda _: ())


def inside(network: Network, names: Sequence[str]) -> Place:
    addresses = {name: (network.host(name), PORT) for name in names}
    return Place(addresses, dict.fromkeys(names, RPC_PORT), network.before)


Strike = Callable[[int], Awaitable[None]]
"""Given the victim's process id."""
Quiet = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Seen:
    """Seconds until each of the others knew, the last one last, and what was measured before."""

    knew: list[float]
    idle: float


async def ours(place: Place, strike: Strike, quiet: Quiet) -> Seen:
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="rollcall-detect-"))
    homes = await asyncio.to_thread(make_homes, root, place.names)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        nodes = {}
        for name, (host, port) in place.addresses.items():
            others = {each: at for each, at in place.addresses.items() if each != name}
            node = NodeProcess(homes[name], host, port, others, before=place.before(name))
            await node.start()
            stack.push_async_callback(node.stop)
            nodes[name] = node
        for node in nodes.values():
            await node.until_linked(place.names, UP_S)
        await asyncio.sleep(SETTLE_S)
        idle = await quiet()
        marks = {name: len(node.events) for name, node in nodes.items()}
        victim = nodes.pop(place.victim)
        began = time.monotonic()
        await strike(victim.pid)
        told = await asyncio.gather(
            *(
                node.until(
                    lambda event: place.victim in event.get("away", {}),
                    f"{place.victim} is silent",
                    after=marks[name],
                    timeout_s=GONE_S,
                )
                for name, node in nodes.items()
            )
        )
        return Seen(sorted(event["at"] - began for event in told), idle)


async def serf(place: Place, strike: Strike, quiet: Quiet) -> Seen:
    first = "{}:{}".format(*place.addresses[place.names[0]])
    async with AsyncExitStack() as stack:
        agents = {}
        for name, (host, port) in place.addresses.items():
            join = [] if name == place.names[0] else [first]
            agent = SerfAgent(
                name, host, port, place.rpc_ports[name], join, before=place.before(name)
            )
            await agent.start()
            stack.push_async_callback(agent.stop)
            agents[name] = agent
        for agent in agents.values():
            await agent.until_joined(place.names, UP_S)
        await asyncio.sleep(SETTLE_S)
        idle = await quiet()
        victim = agents.pop(place.victim)
        began = time.monotonic()
        await strike(victim.pid)
        failed = [agent.until_failed(place.victim, GONE_S) for agent in agents.values()]
        return Seen(sorted(at - began for at in await asyncio.gather(*failed)), idle)


async def _kill(size: int) -> Sample:
    async def strike(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    async def quiet() -> float:
        return 0.0

    place = loopback(size)
    us, them = await ours(place, strike, quiet), await serf(place, strike, quiet)
    return _sample(f"kill{_suffix(size)}_vs_serf", us, them)


async def _cut(size: int) -> list[Sample]:
    names = [f"n{number}" for number in range(size)]
    seen = []
    for side in (ours, serf):
        async with Network(names) as network:

            async def strike(_: int, network: Network = network) -> None:
                await network.cut(names[-1])

            async def quiet(network: Network = network) -> float:
                before = sum([await network.carried(name) for name in names])
                await asyncio.sleep(IDLE_S)
                after = sum([await network.carried(name) for name in names])
                return (after - before) / IDLE_S / size

            seen.append(await side(inside(network, names), strike, quiet))
    samples = [_sample(f"cut{_suffix(size)}_vs_serf", *seen)]
    if size == max(SIZES):
        samples.append(Sample("idle_bytes_vs_serf", seen[0].idle, seen[1].idle, "B/s"))
    return samples


def _suffix(size: int) -> str:
    return "" if size == max(SIZES) else f"_n{size}"


def _sample(figure: str, us: Seen, them: Seen) -> Sample:
    say(f"  {figure}: {us.knew[-1]:.3f} s, serf {them.knew[-1]:.2f} s")
    return Sample(figure, us.knew[-1], them.knew[-1], "s", {"ours": us.knew, "serf": them.knew})


async def run(options: Options) -> list[Sample]:
    await asyncio.to_thread(need, "serf", "serf")
    if not can_make_networks():
        say("no network namespaces can be made here (not root on Linux): cut_* are left out")
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}")
        for size in SIZES:
            samples.append(await _kill(size))
            if can_make_networks():
                samples += await _cut(size)
    return samples
