"""Who consumes reds, and operators' clears, on real processes. The tests share the fleet and run in this order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from scripts.minifleet.fleet import BIN, MiniFleet, Node
from shared.envelope import OPERATOR_CLEAR, seal
from shared.errors import CommandError
from shared.operatorclear import OperatorClear, identity
from tests.fleet.conftest import Ready
from tests.support.fleetkit import PATIENCE_S, status, until_status
from tests.support.stolen import StolenCoordinator

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Follower:
    """`rollcall-agent reds --follow --json` as a process, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events.append(json.loads(line))

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < count:
                await asyncio.sleep(0.05)
        return self.events

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._reading
        assert self._process.stderr is not None
        await self._process.stderr.read()
        await self._process.wait()

    async def interrupt(self) -> tuple[int, str]:
        """As Ctrl-C does; exit code and what was said."""
        self._process.send_signal(signal.SIGINT)
        await self._reading
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode()
        return await self._process.wait(), said


@contextlib.asynccontextmanager
async def following(fleet: MiniFleet, node: Node) -> AsyncIterator[Follower]:
    process = await asyncio.create_subprocess_exec(
        str(BIN / "rollcall-agent"),
        *("reds", "--follow", "--json", "--home", str(node.home)),
        env=fleet.workspace.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    follower = Follower(process)
    try:
        yield follower
    finally:
        await follower.end()


async def raise_red(fleet: MiniFleet, node: Node) -> str:
    """Its gateway's release is taken back by hand, which ends in a red that nobody but people end."""
    await fleet.agent(node, "rollback", "--reason", "a test of reds")
    report = await until_status(fleet, node, lambda it: it["open_reds"], "red")
    return str(report["open_reds"][0]).rsplit("[", 1)[1].rstrip("]")


async def test_reds_are_followed_frozen_by_and_cleared_by_operators(shared: Ready) -> None:
    fleet = shared.fleet
    canary, stable, witness = fleet.nodes
    async with following(fleet, stable) as follower:
        key = await raise_red(fleet, canary)
        (first,) = await follower.until(1)
        assert (first["event"], first["key"], first["origin"]) == ("red", key, "canary")
        report = await until_status(fleet, stable, lambda it: it["frozen_by"], "frozen")
        words = (await fleet.rollcall_agent(stable, "status")).decode()
        assert f"an operator clears it: rollcall red clear {key}" in words
        assert report["freezes"][0]["by"] == "red"

        os.kill(fleet.supervisor.pid("stable") or 0, signal.SIGKILL)
        listed = await fleet.rollcall("red", "list")
        assert [red["key"] for red in listed["reds"]] == [key]
        out, empty = str(fleet.root / "for-others.clear"), str(fleet.root / "nobodys-keys")
        without_keys = ("--reason", "seen to", "--folder", empty, "--out", out)
        with pytest.raises(CommandError, match=r"failed \(3\): not cleared yet"):
            await fleet.rollcall("red", "clear", key, *without_keys)
        signed = await fleet.rollcall("red", "sign", out, *fleet.desk(), "--yes")
        assert signed["missing"] == 0
        await fleet.rollcall("red", "clear", key, "--signature", out)
        for node in fleet.nodes:
            report = await until_status(fleet, node, lambda it: not it["open_reds"], "free")
        events = await follower.until(2)
        assert [(each["event"], each["key"], each["by"]) for each in events] == [
            ("red", key, None),
            ("clear", key, "operator"),
        ]
        assert events[0]["id"] < events[1]["id"]
        code, said = await follower.interrupt()
        assert (code, "Traceback" in said) == (130, False), said
    async with aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{witness.api_port}/v1/reds/stream"
        async with client.get(url, headers={"Last-Event-ID": "0"}) as answer:
            seen = b""
            async with asyncio.timeout(60):
                while seen.count(b"data: ") < 2:
                    seen += await answer.content.readany()
    assert b"event: red\n" in seen
    assert b"event: clear\n" in seen


async def test_a_stolen_coordinator_clears_nothing(shared: Ready) -> None:
    fleet = shared.fleet
    _, stable, witness = fleet.nodes
    key = await raise_red(fleet, witness)
    await until_status(fleet, stable, lambda it: it["frozen_by"] == [key], "frozen")
    red = (await fleet.rollcall("red", "show", key))["red"]
    await fleet.supervisor.stop("coordinator")
    thief = StolenCoordinator(fleet.root / "coordinator", fleet.coordinator_port)
    await thief.start()
    ref, sha256 = identity(red)
    fleet_id = thief.repository.must_fleet().fleet
    clear = OperatorClear(fleet=fleet_id, ref=ref, sha256=sha256, reason="all is well", issued=1.0)
    keys = thief.ring.current
    for signers in ([keys.online], [keys.roster], [keys.online, keys.roster]):
        thief.clears = [seal(clear.canonical(), OPERATOR_CLEAR, *signers).decode()]
        handed = thief.handed
        async with asyncio.timeout(PATIENCE_S):
            while thief.handed < handed + 6:
                await asyncio.sleep(0.1)
        report = await status(fleet, stable)
        assert report["frozen_by"] == [key]
        assert report["dropped"].get("too-few"), report["dropped"]
    await thief.stop()
    await _clear_by_hand(fleet, stable, key)


async def _clear_by_hand(fleet: MiniFleet, node: Node, key: str) -> None:
    """Without any coordinator, by way of one node."""
    out = str(fleet.root / "by-hand.clear")
    await fleet.agent(node, "clear", key, "--reason", "seen to", "--draft", out)
    signed = await fleet.rollcall("red", "sign", out, *fleet.desk(), "--yes")
    assert signed["missing"] == 0
    await fleet.agent(node, "clear", key, "--signature", out)
    for each in fleet.nodes:
        await until_status(fleet, each, lambda it: not it["open_reds"], "free")
