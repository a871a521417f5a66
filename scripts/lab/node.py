"""One node of the mesh: `node HOME --host ADDRESS --port PORT [--peer NAME=HOST:PORT ...]`.

Its parts are the agent's own. It takes lines of JSON on stdin, `{"do": "red", "reason": "x"}`, answers each with
one line on stdout, `{"done": "red", ...}` or `{"failed": "red", "reason": ...}`, and tells what happens to it as
`{"event": "away", ...}`. Every line has `at`, on the system's monotonic clock. The end of stdin, and SIGTERM, stop it
in order.

| do | with | answers |
|---|---|---|
| red | reason | key |
| clear | key, reason | |
| alarm | reason | key, acked_ms by peer: once all have acked it |
| end | key, reason | clears, and answers once all have acked that |
| reds | | open, frozen_by: keys |
| acks | | broadcasts: key, acked_ms by peer |
| away | | away: since, left, reason by peer |
| links | | links: names |
| peers | | what `rollcall-agent peers --json` shows |
| inbox | | events: what a consumer has been given, in order |
| footprint | | rss: bytes, descriptors, dropped: messages by reason |
| learn | peer, host, port | |
| silent | seconds | blocks its own loop for so long |
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil

from agent.config import PeerConfig
from agent.dialler import Dialler
from agent.discovering import Discovering
from agent.feed import Inbox
from agent.layout import Layout
from agent.peer_api import PeerApi
from agent.peering import Peering
from agent.peers.directory import Directory, Found, Hint
from agent.peers.gossip import Gossip
from agent.peers.links import Links
from agent.peers.overlay import Overlay
from agent.peers.transport import Transport
from agent.readiness.publishing import Published
from agent.store import Store
from agent.trust import load_trust
from shared import logs
from shared.clock import SystemClock
from shared.errors import NotFoundError, RollcallError, UnavailableError, UsageError
from shared.lean import keep_for_good
from shared.listener import Server
from shared.messages import Message, Red, RedKind
from shared.tls import server_context


class NoRepository:
    async def serve(self, path: str) -> bytes:
        raise NotFoundError(f"a node of the mesh alone has no {path}")


def no_readiness() -> Published:
    raise UnavailableError("a node of the mesh alone has no gateway")


def tell(**line: Any) -> None:
    sys.stdout.write(json.dumps({**line, "at": time.monotonic()}) + "\n")
    sys.stdout.flush()


class Node:
    """Opened on `stack`, which closes it in reverse."""

    def __init__(self, home: Path, config: PeerConfig, *, quiet: bool = False) -> None:
        self._config, self._quiet = config, quiet
        self._layout = Layout(home)
        self._clock = SystemClock()
        self._told_away: dict[str, bool] = {}
        self._news = asyncio.Event()

    async def open(self, stack: AsyncExitStack) -> int:
        """The port that it listens on."""
        config, layout, clock = self._config, self._layout, self._clock
        trust = await asyncio.to_thread(load_trust, layout)
        store = await Store.open(layout.database)
        stack.push_async_callback(store.close)
        self._inbox = Inbox(store, trust.name)
        self._directory = Directory()
        dialler = Dialler(layout.tls)
        stack.push_async_callback(dialler.close)
        overlay = Overlay(trust, links=config.links, full_mesh_below=config.full_mesh_below)
        self._links = Links(trust, self._directory, dialler, clock, overlay)
        transport = Transport(self._directory, dialler, self._links.get)
        self._peering = Peering(
            config,
            trust,
            store,
            transport,
            self._directory,
            self._links,
            clock,
            epoch=await store.next_epoch(clock.now()),
            on_message=self._heard,
            on_change=self._changed,
        )
        await self._peering.open(stack)
        self._discovering = Discovering(
            config,
            layout,
            trust,
            self._directory,
            self._links,
            clock,
            on_found=self._peering.mesh.peer_found,
            has_list=lambda: False,
        )
        await self._discovering.open(stack)
        self._names = trust.peer_names
        self._gossip = Gossip(
            trust, transport, clock, self._no_fleet, overlay.chosen, every_s=config.sync_every
        )
        door = PeerApi(
            trust,
            self._peering.mesh,
            self._gossip,
            NoRepository(),
            no_readiness,
            more=[self._peering.operations(), self._discovering.operations()],
        )
        self._links.open(door.answers, on_up=self._link_up, on_lost=self._link_lost)
        context = server_context(layout.tls, require_client=True)
        server = Server(door.application(self._links.accept), config.host, config.port, context)
        await server.start()
        stack.push_async_callback(server.stop)
        await self._peering.listen(config.host, server.port)
        stack.push_async_callback(self._links.close)
        stack.push_async_callback(self._peering.liveness.leave)
        self._port = server.port
        return server.port

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peering.run())
            group.create_task(self._gossip.run())
            group.create_task(self._discovering.run(self._port))

    async def _no_fleet(self, peer: str) -> None:
        tell(event="newer-fleet", peer=peer)

    def _heard(self, message: Message) -> None:
        if not self._quiet:
            tell(event="heard", type=message.payload.body.type, key=message.key)

    def _changed(self) -> None:
        self._news.set()
        away = {name: absence.left for name, absence in self._peering.liveness.away().items()}
        if away != self._told_away:
            self._told_away = away
            tell(event="away", **self._away())

    def _link_up(self, peer: str) -> None:
        self._peering.link_up(peer)
        self._discovering.link_up(peer)
        tell(event="link", peer=peer, up=True)

    def _link_lost(self, peer: str) -> None:
        self._peering.link_lost(peer)
        tell(event="link", peer=peer, up=False)

    def _away(self) -> dict[str, Any]:
        found = self._peering.liveness.away()
        return {"away": {name: each.model_dump(mode="json") for name, each in found.items()}}

    async def do(self, line: bytes) -> None:
        word = ""
        try:
            order = json.loads(line)
            word = str(order.pop("do"))
            orders: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
                "red": self._red,
                "clear": self._clear,
                "alarm": self._alarm,
                "end": self._end,
                "reds": self._reds,
                "acks": self._acks,
                "away": self._show_away,
                "links": self._show_links,
                "peers": self._show_peers,
                "inbox": self._show_inbox,
                "footprint": self._footprint,
                "learn": self._learn,
                "silent": self._hang,
            }
            if word not in orders:
                raise UsageError(f"there is no {word!r}")
            tell(done=word, **await orders[word](**order))
        except (RollcallError, ValueError, TypeError, KeyError, AttributeError) as error:
            tell(failed=word, reason=f"{type(error).__name__}: {error}")

    async def _red(self, reason: str) -> dict[str, Any]:
        red = await self._peering.mesh.broadcast(Red(kind=RedKind.READINESS, reason=reason))
        return {"key": red.key}

    async def _clear(self, key: str, reason: str) -> dict[str, Any]:
        await self._peering.mesh.clear(key, reason)
        return {}

    async def _alarm(self, reason: str) -> dict[str, Any]:
        key = (await self._red(reason))["key"]
        while True:
            self._news.clear()
            acked = await self._acked_ms(key)
            if len(acked) == len(self._names()):
                return {"key": key, "acked_ms": acked}
            await self._news.wait()

    async def _acked_ms(self, key: str) -> dict[str, float]:
        """By peer, once the ack is stored here: `_changed` is called after that."""
        sent = await self._peering.mesh.recent_broadcasts()
        return next(each.acked_ms for each in sent if each.key == key)

    async def _end(self, key: str, reason: str) -> dict[str, Any]:
        await self._clear(key, reason)
        while self._peering.mesh.unacked():
            self._news.clear()
            await self._news.wait()
        return {}

    async def _reds(self) -> dict[str, Any]:
        mesh = self._peering.mesh
        return {
            "open": sorted(red.key for red in mesh.open_reds()),
            "frozen_by": sorted(red.key for red in mesh.frozen_by()),
        }

    async def _acks(self) -> dict[str, Any]:
        sent = await self._peering.mesh.recent_broadcasts()
        return {"broadcasts": [{"key": each.key, "acked_ms": each.acked_ms} for each in sent]}

    async def _show_away(self) -> dict[str, Any]:
        return self._away()

    async def _show_links(self) -> dict[str, Any]:
        return {"links": sorted(name for name in self._names() if self._links.get(name))}

    async def _show_peers(self) -> dict[str, Any]:
        return (await self._discovering.listing()).model_dump(mode="json", exclude={"at"})

    async def _show_inbox(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        while events := await self._inbox.after(found[-1]["id"] if found else 0):
            found += [
                each.model_dump(mode="json", include={"id", "event", "key"}) for each in events
            ]
        return {"events": found}

    async def _footprint(self) -> dict[str, Any]:
        me = psutil.Process()
        rss, descriptors = await asyncio.to_thread(lambda: (me.memory_info().rss, me.num_fds()))
        return {
            "rss": rss,
            "descriptors": descriptors,
            "dropped": dict(self._peering.mesh.dropped),
        }

    async def _learn(self, peer: str, host: str, port: int) -> dict[str, Any]:
        self._directory.learn(peer, Hint(host, port, Found.STATIC))
        self._links.nudge(peer)
        return {}

    async def _hang(self, seconds: float) -> dict[str, Any]:
        time.sleep(seconds)  # noqa: ASYNC251 - blocking is what it is for
        return {}


class Orders(Protocol):
    """Who takes them, and lives meanwhile."""

    async def do(self, line: bytes) -> None: ...
    async def run(self) -> None: ...


async def take_orders(node: Orders) -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            await node.do(line)
    finally:
        pipe.close()


async def stay(node: Orders) -> None:
    """Until stdin ends, or the task is cancelled."""
    work = {asyncio.create_task(node.run()), asyncio.create_task(take_orders(node))}
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def end_with_sigterm() -> None:
    """The task that is running now."""
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is not None:
        loop.add_signal_handler(signal.SIGTERM, me.cancel)


async def live(home: Path, config: PeerConfig, *, quiet: bool) -> None:
    end_with_sigterm()
    async with AsyncExitStack() as stack:
        node = Node(home, config, quiet=quiet)
        port = await node.open(stack)
        keep_for_good()
        tell(event="up", port=port)
        await stay(node)


def main() -> None:
    parser = argparse.ArgumentParser(prog="node", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=HOST:PORT")
    parser.add_argument("--probes", type=int, default=3)
    parser.add_argument("--full-mesh-below", type=int, default=200)
    parser.add_argument("--links", type=int, default=12)
    parser.add_argument("--quiet", action="store_true", help="do not tell what it hears")
    parser.add_argument("--sync-every", type=float, default=30.0)
    parser.add_argument("--discover", action="store_true", help="find peers by mDNS, too")
    options = parser.parse_args()
    logs.configure(options.home / "logs" / "node.log")
    config = PeerConfig(
        host=options.host,
        port=options.port,
        static=options.peer,
        mdns=options.discover,
        probes=options.probes,
        full_mesh_below=options.full_mesh_below,
        links=options.links,
        sync_every=options.sync_every,
    )
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(live(options.home, config, quiet=options.quiet))


if __name__ == "__main__":
    main()
