"""Who is there, found over real sockets: peers in one process that are cut, hang, stop and come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.peers.asked import ASKED, BusyError
from agent.peers.directory import Found, Hint
from agent.peers.hearsay import TRY, UNREACHED, Try, Unreached
from agent.peers.silence import ALONE_S, SETTLE_S
from scripts.minifleet.ports import free_port
from shared.errors import NotFoundError
from tests.support.trustkit import make_fleet
from tests.unit.test_mesh import Peer, with_files


class Valve:
    """A port in front of a peer's. `hold`: what comes is kept back and no connection ends, as where a cable was cut
    or a process was stopped; `cut`: all connections are reset and nobody listens."""

    def __init__(self, port: int) -> None:
        self._target, self.port = port, free_port()
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> Valve:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    def hold(self) -> None:
        self._flows.clear()

    def let_go(self) -> None:
        self._flows.set()

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            inner, outer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(outer)
            await asyncio.gather(self._pump(reader, outer), self._pump(inner, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class World:
    """Peers `a`, `b`, `c`; each reaches `c` through a valve of its own, and `c` dials nobody."""

    def __init__(self, peers: dict[str, Peer], valves: dict[str, Valve]) -> None:
        self.peers, self.valves = peers, valves

    def silent(self, at: str, peer: str = "c") -> bool:
        absence = self.peers[at].liveness.away().get(peer)
        return absence is not None and not absence.left


async def until(good: Callable[[], bool], what: str, within_s: float = 60.0) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s):
            while not good():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {within_s} s: {what}")
    return time.monotonic() - began


Make = Callable[..., Awaitable[World]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[World] = []

    async def build(names: tuple[str, ...] = ("a", "b", "c")) -> World:
        fleet = await asyncio.to_thread(lambda: with_files(make_fleet(tmp_path, names)))
        peers = {name: await Peer(fleet, name).up() for name in names}
        others = [name for name in names if name != "c"]
        valves = {name: await Valve(peers["c"].port).open() for name in others}
        world = World(peers, valves)
        made.append(world)
        for name in others:
            peers[name].knows(*(peers[each] for each in others if each != name))
            peers[name].directory.learn("c", Hint("127.0.0.1", valves[name].port, Found.STATIC))
        for peer in peers.values():
            peer.run()
        pairs = [(one, two) for one in names for two in names if one != two]
        await until(lambda: all(peers[one].links.get(two) for one, two in pairs), "all are linked")
        await asyncio.sleep(SETTLE_S)
        assert not any(peer.liveness.away() for peer in peers.values())
        found = {(one, two): peers[one].directory.how(two) for one, two in pairs if one != "c"}
        assert set(found.values()) == {"static"}, "whoever dialled, the other finds a way too"
        return world

    yield build
    for world in made:
        for valve in world.valves.values():
            valve.let_go()
        for peer in world.peers.values():
            await peer.down()
        for valve in world.valves.values():
            await valve.cut()


async def test_who_refuses_is_silent_to_all_at_once_and_there_again_when_it_is_back(
    make: Make,
) -> None:
    world = await make()
    for valve in world.valves.values():
        await valve.cut()
    took = await until(lambda: world.silent("a") and world.silent("b"), "c is silent to both")
    assert took < 1.0, "no tick was waited for, and no patience lost"
    reasons = [world.peers[name].liveness.away()["c"].reason for name in ("a", "b")]
    assert "nor b" in reasons[0]
    assert "nor a" in reasons[1]
    assert not world.peers["c"].liveness.away(), "it reaches nobody, and accuses nobody"
    for name, valve in world.valves.items():
        await valve.open()
        world.peers[name].links.nudge("c")
    await until(lambda: not (world.silent("a") or world.silent("b")), "c is back")


async def test_who_hangs_is_silent_to_all_and_its_late_answer_ends_that(make: Make) -> None:
    world = await make()
    for valve in world.valves.values():
        valve.hold()
    took = await until(lambda: world.silent("a") and world.silent("b"), "c is silent to both")
    assert took > 1.0, "one answer that is late makes nobody silent"
    for valve in world.valves.values():
        valve.let_go()
    await until(lambda: not (world.silent("a") or world.silent("b")), "c is back")


async def test_whom_another_reaches_is_not_silent(make: Make) -> None:
    """Fault 18: between a and c nothing goes through; b answers for c."""
    world = await make()
    world.valves["a"].hold()
    for _ in range(60):
        await asyncio.sleep(0.1)
        assert not any(peer.liveness.away() for peer in world.peers.values())


async def test_of_two_nodes_the_other_is_silent_after_a_longer_time(make: Make) -> None:
    world = await make(("a", "c"))
    await world.valves["a"].cut()
    took = await until(lambda: world.silent("a"), "c is silent", ALONE_S + 5)
    assert took > ALONE_S - 2


async def test_a_goodbye_is_shown_as_such(make: Make) -> None:
    world = await make()
    await world.peers["c"].liveness.leave()
    assert {name: world.peers[name].liveness.away()["c"].left for name in ("a", "b")} == {
        "a": True,
        "b": True,
    }
    for valve in world.valves.values():
        await valve.cut()
    await asyncio.sleep(0.5)
    assert not world.silent("a")
    assert not world.silent("b")


async def test_what_peers_may_ask_and_say_is_bounded(make: Make) -> None:
    world = await make(("a", "b", "c"))
    operations = world.peers["a"].liveness.operations()
    ask, _ = operations["POST", TRY]
    with pytest.raises(NotFoundError):
        await ask("b", {}, Try(peer="stranger").canonical())
    hear, limit = operations["POST", UNREACHED]
    lie = Unreached(unreached={"c": 0.0, "a": 0.0, "b": 0.0, "stranger": 0.0}, doubted=["c"])
    assert len(lie.canonical()) < limit
    for _ in range(ASKED - 1):
        await hear("b", {}, lie.canonical())
    with pytest.raises(BusyError):
        await hear("b", {}, lie.canonical())
    assert not world.peers["a"].liveness.away(), "a lie of one makes nobody silent"
    await asyncio.sleep(0.5)
    assert not world.peers["a"].liveness.away()


async def test_a_reporter_that_doubts_itself_takes_nothing_back(make: Make) -> None:
    world = await make()
    for valve in world.valves.values():
        valve.hold()
    a = world.peers["a"].liveness
    hear, _ = a.operations()["POST", UNREACHED]
    await until(lambda: world.silent("a"), "c is silent to a")
    await hear("b", {}, Unreached(unreached={"c": 0.0}).canonical())
    await hear("b", {}, Unreached(unsure=True).canonical())
    await asyncio.sleep(0.1)
    assert world.silent("a"), "who doubts itself takes nothing back"
