"""The two sides of `scripts/bench broadcast`: all nodes of one up and connected, and a word spread among them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import psutil

from scripts.benchmarks.detect import Place
from scripts.lab.homes import make_homes
from scripts.lab.process import NodeProcess
from scripts.lab.serf import SerfAgent, SerfCalls

UP_S = 120.0
SETTLE_S = 8.0
"""After all are connected: serf's first exchanges are over."""
LATE_S = 120.0


class Side(Protocol):
    async def spread(self, origin: str, word: str) -> float:
        """Seconds until the last has it. Everything is ready for the next one when it returns."""
        ...

    async def tell(self, origin: str, word: str) -> None:
        """One message more, without waiting for anybody."""
        ...

    def cpu_s(self) -> float:
        """Processor time that all its processes have used."""
        ...


class Ours:
    def __init__(self, nodes: dict[str, NodeProcess]) -> None:
        self._nodes = nodes
        self._open: dict[str, str] = {}

    async def spread(self, origin: str, word: str) -> float:
        node = self._nodes[origin]
        alarm = await node.do("alarm", reason=word)
        await node.do("end", key=alarm["key"], reason="over")
        return max(map(float, alarm["acked_ms"].values())) / 1000

    async def tell(self, origin: str, word: str) -> None:
        """A red, or the clear of the last one."""
        node = self._nodes[origin]
        if (key := self._open.pop(origin, None)) is not None:
            await node.do("clear", key=key, reason="over")
        else:
            self._open[origin] = (await node.do("red", reason=word))["key"]

    def cpu_s(self) -> float:
        return _cpu_s([node.pid for node in self._nodes.values()])


class Serf:
    def __init__(self, agents: dict[str, SerfAgent], calls: dict[str, SerfCalls]) -> None:
        self._agents, self._calls = agents, calls

    async def spread(self, origin: str, word: str) -> float:
        began = await self._calls[origin].event(word)
        came = [agent.until_delivered(word, LATE_S) for agent in self._agents.values()]
        return max(await asyncio.gather(*came)) - began

    async def tell(self, origin: str, word: str) -> None:
        await self._calls[origin].event(word)

    def cpu_s(self) -> float:
        return _cpu_s([agent.pid for agent in self._agents.values()])


SocketIn = Callable[[str], socket.socket]
"""One in the network of the node of this name."""
Start = Callable[[Place, SocketIn], AbstractAsyncContextManager[Side]]


@asynccontextmanager
async def ours(place: Place, socket_in: SocketIn) -> AsyncIterator[Side]:
    root = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="rollcall-broadcast-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        homes = await asyncio.to_thread(make_homes, root, place.names)
        nodes = {}
        for name, (host, port) in place.addresses.items():
            others = {each: at for each, at in place.addresses.items() if each != name}
            before = place.before(name)
            node = NodeProcess(homes[name], host, port, others, before=before, words=["--quiet"])
            await node.start()
            stack.push_async_callback(node.stop)
            nodes[name] = node
        for node in nodes.values():
            await node.until_linked(place.names, UP_S)
        await asyncio.sleep(SETTLE_S)
        yield Ours(nodes)


@asynccontextmanager
async def serf(place: Place, socket_in: SocketIn) -> AsyncIterator[Side]:
    first = "{}:{}".format(*place.addresses[place.names[0]])
    async with AsyncExitStack() as stack:
        agents, calls = {}, {}
        for name, (host, port) in place.addresses.items():
            join, rpc_port = ([] if name == place.names[0] else [first]), place.rpc_ports[name]
            agent = SerfAgent(name, host, port, rpc_port, join, before=place.before(name))
            await agent.start()
            stack.push_async_callback(agent.stop)
            agents[name] = agent
        for name, agent in agents.items():
            await agent.until_joined(place.names, UP_S)
            calls[name] = await SerfCalls.open(socket_in(name), place.rpc_ports[name])
            stack.push_async_callback(calls[name].close)
        await asyncio.sleep(SETTLE_S)
        yield Serf(agents, calls)


def _cpu_s(pids: list[int]) -> float:
    used = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in used)
