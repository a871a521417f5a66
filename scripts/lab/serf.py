"""serf's agent as a process, from outside: what it says of the other members and of events, and when."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Sequence

from scripts.lab.child import Child
from shared.errors import UnavailableError

EVENT = re.compile(rb"EventMember(Join|Failed|Leave): (\S+) ")
USER_EVENT = re.compile(rb"Received event: user-event: (\S+)")
ANSWER_S = 10.0


class SerfAgent(Child):
    """With serf's own settings for a LAN. `before` stands before the program, such as `ip netns exec NAME`."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        rpc_port: int,
        join: Sequence[str],
        *,
        before: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._argv = [
            *before,
            *("serf", "agent", f"-node={name}", f"-bind={host}:{port}"),
            f"-rpc-addr=127.0.0.1:{rpc_port}",
            *(f"-retry-join={address}" for address in join),
            "-retry-interval=1s",
        ]
        self.joined: set[str] = set()
        self.failed: dict[str, float] = {}
        """Who, and when, on the system's monotonic clock."""
        self.delivered: dict[str, float] = {}
        """Events by name, and when."""
        self._news = asyncio.Condition()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read(), name=f"serf-{self.name}")

    async def _read(self) -> None:
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            if (event := USER_EVENT.search(line)) is not None:
                now = time.monotonic()
                async with self._news:
                    self.delivered[event[1].decode()] = now
                    self._news.notify_all()
            if (found := EVENT.search(line)) is None:
                continue
            what, who, now = found[1], found[2].decode(), time.monotonic()
            async with self._news:
                if what == b"Join":
                    self.joined.add(who)
                elif what == b"Failed":
                    self.failed[who] = now
                self._news.notify_all()

    async def until_joined(self, names: Sequence[str], timeout_s: float) -> None:
        await self._until(lambda: set(names) <= self.joined, "all have joined", timeout_s)

    async def until_failed(self, name: str, timeout_s: float) -> float:
        await self._until(lambda: name in self.failed, f"{name} has failed", timeout_s)
        return self.failed[name]

    async def until_delivered(self, event: str, timeout_s: float) -> float:
        await self._until(lambda: event in self.delivered, f"{event} came", timeout_s)
        return self.delivered[event]

    async def _until(self, good: Callable[[], bool], what: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(good)
        except TimeoutError:
            raise UnavailableError(
                f"serf of {self.name} did not say within {timeout_s:g} s that {what}"
            ) from None


class SerfCalls:
    """A kept connection with an agent's RPC, for events: what `serf event` does, without its start as a process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0

    @classmethod
    async def open(cls, sock: socket.socket, port: int) -> SerfCalls:
        """To 127.0.0.1 in the network that the socket is in. Raises OSError."""
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        calls = cls(*await asyncio.open_connection(sock=sock))
        await calls._call("handshake", {"Version": 1})
        return calls

    async def event(self, name: str) -> float:
        """Without a payload, and not coalesced: that alone takes a second or more. Returns when it was begun."""
        began = time.monotonic()
        await self._call("event", {"Name": name, "Payload": "", "Coalesce": False})
        return began

    async def _call(self, command: str, body: dict[str, str | int]) -> None:
        self._number += 1
        head: dict[str, str | int] = {"Command": command, "Seq": self._number}
        self._writer.write(_packed(head) + _packed(body))
        async with asyncio.timeout(ANSWER_S):
            answer = await self._reader.readuntil(b"Error")
            length = (await self._reader.readexactly(1))[0] - SHORT_TEXT
        if length != 0:
            raise UnavailableError(f"serf refused {command}: {answer[:100]!r}")

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


SHORT_MAP, SHORT_TEXT, UINT32 = 0x80, 0xA0, 0xCE


def _packed(value: dict[str, str | int]) -> bytes:
    """As much of MessagePack as serf's RPC needs for short words and whole numbers."""
    parts = [bytes([SHORT_MAP | len(value)])]
    for each in (word for pair in value.items() for word in pair):
        match each:
            case bool():
                parts.append(b"\xc3" if each else b"\xc2")
            case int():
                parts.append(bytes([UINT32]) + each.to_bytes(4, "big"))
            case _:
                parts.append(bytes([SHORT_TEXT | len(each)]) + each.encode())
    return b"".join(parts)
