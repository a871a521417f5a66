"""The freeze hook: real programs, a real database, and reds that a test opens and ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from agent.config import HookConfig
from agent.hooks import ATTEMPTS, FreezeHook, Tellings
from agent.store import Store
from shared.clock import SystemClock
from shared.messages import Message, Payload, Red
from shared.wire import MAX_INTEGER

REASON = 'gateway: "quoted"; $(touch /tmp/x) `x` \n --flag'


def red(origin: str, sequence: int) -> Message:
    body = Red(kind="readiness", reason=REASON, release="a" * 64)
    payload = Payload(
        fleet="f" * 64, origin=origin, epoch=MAX_INTEGER, sequence=sequence, issued=1.5, body=body
    )
    return Message(payload=payload, raw="")


class QuickClock(SystemClock):
    """Pauses are noted, and short."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.01)


class World:
    def __init__(self, home: Path, store: Store) -> None:
        self.home, self.store, self.clock = home, store, QuickClock()
        self.reds: list[Message] = []
        self.tasks: list[asyncio.Task[None]] = []

    def program(self, text: str) -> str:
        path = self.home / "hook"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return str(path)

    async def start(self, text: str, timeout_s: float = 5) -> FreezeHook:
        argv = [await asyncio.to_thread(self.program, text), str(self.home / "told"), "$HOME *"]
        return self.begin(argv, timeout_s)

    def begin(self, argv: list[str], timeout_s: float) -> FreezeHook:
        hook = FreezeHook(
            HookConfig(freeze=argv, freeze_timeout=timeout_s),
            "a",
            str(self.home),
            Tellings(self.store),
            lambda: self.reds,
            self.clock,
        )
        self.tasks.append(asyncio.create_task(hook.run()))
        return hook

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    async def told(self) -> list[str]:
        """The lines that are whole."""
        path = self.home / "told"
        text = await asyncio.to_thread(lambda: path.read_text() if path.exists() else "")
        return text.rpartition("\n")[0].splitlines()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def until_told(world: World, count: int) -> list[str]:
    async with asyncio.timeout(60):
        while len(told := await world.told()) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert await world.told() == told, "and nothing more"
    return told


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await Store.open(tmp_path / "agent.db")
    made = World(tmp_path, store)
    yield made
    await made.stop()
    await store.close()


async def test_each_red_is_told_once_on_stdin_and_in_no_argument(world: World) -> None:
    hook = await world.start(
        'env > "$1.env"; printf "%s|" "$#" "$2" >> "$1"; cat >> "$1"; echo >> "$1"'
    )
    world.reds = [red("a", 1), red("b", 2)]
    hook.changed()
    lines = await until_told(world, 2)
    own, peers = (json.loads(line.split("|", 2)[2]) for line in lines)
    assert [line.split("|")[:2] for line in lines] == [["2", "$HOME *"]] * 2
    assert own == {
        "schemaVersion": 1,
        "event": "red",
        "node": "a",
        "key": world.reds[0].key,
        "origin": "a",
        "own": True,
        "kind": "readiness",
        "reason": REASON,
        "release": "a" * 64,
        "issued": 1.5,
    }
    assert (peers["origin"], peers["own"]) == ("b", False)
    env = await asyncio.to_thread((world.home / "told.env").read_text)
    names = {line.partition("=")[0] for line in env.splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LANG", "ROLLCALL_CHILD_OF"}
    hook.changed()
    await until_told(world, 2)
    assert hook.alerts == []


async def test_a_restart_tells_nothing_again(world: World) -> None:
    world.reds = [red("b", 1)]
    await world.start('cat >> "$1"; echo >> "$1"')
    await until_told(world, 1)
    await world.stop()
    world.reds = [red("b", 1), red("b", 2)]
    await world.start('cat >> "$1"; echo >> "$1"')
    told = [json.loads(line)["key"] for line in await until_told(world, 2)]
    assert told == [each.key for each in world.reds]


async def test_a_failure_is_tried_again_a_few_times_then_shown_while_the_red_is_open(
    world: World,
) -> None:
    world.reds = [red("b", 1)]
    hook = await world.start('echo once >> "$1"; echo "no such switch" >&2; exit 3')
    await until(lambda: bool(hook.alerts))
    assert await until_told(world, ATTEMPTS) == ["once"] * ATTEMPTS
    assert hook.alerts == [
        f"the freeze hook failed 3 times for red {world.reds[0].key}: it ended with 3: no such switch"
    ]
    await world.stop()
    hook = await world.start('echo once >> "$1"')
    await until(lambda: bool(hook.alerts))
    assert await world.told() == ["once"] * ATTEMPTS
    assert "see this agent's log" in hook.alerts[0]
    world.reds = []
    hook.changed()
    await until(lambda: not hook.alerts)
    assert await world.store.rows("SELECT * FROM meta WHERE key GLOB 'freeze-hook*'") == []


async def test_one_red_that_fails_does_not_keep_the_next_from_being_told(world: World) -> None:
    world.reds = [red("a", 1), red("b", 2)]
    hook = await world.start('grep -q \'"own":true\' && exit 1; echo told >> "$1"')
    await until(lambda: bool(hook.alerts))
    assert await world.told() == ["told"]
    assert len(hook.alerts) == 1


async def test_one_that_hangs_is_ended_with_all_its_children(world: World) -> None:
    world.reds = [red("b", 1)]
    hook = await world.start('sleep 300 & echo $! >> "$1"; wait', timeout_s=0.3)
    await until(lambda: bool(hook.alerts))
    assert "did not end within 0.3 s" in hook.alerts[0]
    pids = [int(line) for line in await world.told()]
    assert len(pids) == ATTEMPTS
    async with asyncio.timeout(60):
        while any(_alive(pid) for pid in pids):
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_never_two_at_a_time_and_none_for_a_red_that_is_over(world: World) -> None:
    world.reds = [red("b", number) for number in range(1, 5)]
    hook = await world.start(
        'mkdir "$1.lock" || exit 1; echo run >> "$1"; sleep 0.2; rmdir "$1.lock"'
    )
    await until((world.home / "told").exists)
    world.reds = world.reds[:2]
    hook.changed()
    assert await until_told(world, 2) == ["run", "run"]
    await asyncio.sleep(0.5)
    assert await world.told() == ["run", "run"]
    assert world.clock.slept == [], "nothing failed"


async def test_a_program_that_is_not_there_or_reads_nothing(world: World, tmp_path: Path) -> None:
    world.reds = [red("b", 1)]
    hook = await world.start('exec < /dev/null; echo fine >> "$1"')
    await until_told(world, 1)
    await world.stop()
    world.reds = [red("b", 2)]
    await asyncio.to_thread((tmp_path / "hook").unlink)
    hook = world.begin([str(tmp_path / "hook")], timeout_s=5)
    await until(lambda: bool(hook.alerts))
    assert "cannot run" in hook.alerts[0]


async def test_a_database_that_fails_is_waited_for(world: World) -> None:
    world.reds = [red("b", 1)]
    await world.store.write("ALTER TABLE meta RENAME TO away")
    await world.start('echo told >> "$1"')
    await until(lambda: len(world.clock.slept) > 2)
    assert await world.told() == []
    await world.store.write("ALTER TABLE away RENAME TO meta")
    await until_told(world, 1)
