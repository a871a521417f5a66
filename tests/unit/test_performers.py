"""What orders do to a node: a restart, a rollback, a bundle of logs; each finished once after a kill of the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config import DrainPolicy
from agent.openclaw.gateway import Gate, GateReading
from agent.orders.kept import Doing, KeptOrders
from agent.orders.logs import ROOM, make_bundle
from agent.orders.performer import Hands, Work
from agent.orders.restart import Restart
from agent.orders.rollback import Rollback
from agent.readiness.logs.follow import Follower
from agent.readiness.logs.forms import LogReport
from agent.readiness.logs.gateway import Tail
from agent.readiness.logs.lines import readable
from agent.service.base import Pid
from agent.upgrade.phases import Phase
from shared.clock import SystemClock
from shared.errors import ConflictError, UntrustedError
from shared.orders import (
    MAX_RESULT_CHARS,
    OpenOrder,
    OrderTerms,
)
from tests.unit.test_ordering import ORDER


@dataclass
class Node:
    """A gateway whose process, weight and work only note what is asked of them."""

    home: Path
    did: list[str] = field(default_factory=list)
    alive_now: Pid | None = field(default_factory=lambda: Pid(7, 1.0))
    percent: int = 40
    busy: bool = False
    holds: int = 0
    starting: asyncio.Event | None = None
    """Where a start takes its time."""

    def again(self, before: int) -> int:
        """Half of what it was: so a test sees that it was asked."""
        return before // 2

    def deps(self) -> Any:
        self.home.joinpath("current").mkdir(exist_ok=True)
        limits = SimpleNamespace(drain_timeout=1.0, drain_policy=DrainPolicy.ABORT, settle=1.0)
        gateway = SimpleNamespace(stop_timeout=5, ready_timeout=5, port=1)
        quiet = SimpleNamespace(pause=lambda: None, resume=lambda: None, refresh=self.refresh)
        return SimpleNamespace(
            clock=SystemClock(),
            config=SimpleNamespace(upgrade=limits, gateway=gateway),
            layout=SimpleNamespace(current=self.home / "current"),
            openclaw=lambda tree: self,
            progress=lambda text: None,
            readiness=quiet,
            weight=self,
            service=self,
            gateway=self,
            service_spec=lambda: None,
        )

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        self.holds += 1
        yield
        self.holds -= 1

    def get(self) -> int:
        return self.percent

    async def set(self, percent: int) -> None:
        self.percent = percent
        self.did.append(f"weight {percent}")

    async def leave(self) -> list[str]:
        await self.set(0)
        return []

    async def refresh(self) -> None:
        self.did.append("look")

    async def running_version(self, _: Any) -> str:
        return "2026.7.35"

    async def queue(self, _: Any, *, at_once: bool = False) -> Any:
        return SimpleNamespace(safe=not self.busy, blockers=["answering bob"], active=1)

    async def readyz(self) -> Any:

        return GateReading(Gate.READY if self.alive_now is not None else Gate.DOWN)

    async def alive(self) -> Pid | None:
        return self.alive_now

    async def stop(self, timeout_s: float) -> None:
        self.did.append("stop")
        self.alive_now = None

    async def start(self, _: Any) -> Pid:
        if self.starting is not None:
            self.starting.set()
            await asyncio.Event().wait()
        if self.alive_now is None:
            self.did.append("start")
            self.alive_now = Pid(8, 2.0)
        return self.alive_now


def restart_of(node: Node, kept: KeptOrders, **terms: Any) -> tuple[Restart, Work]:

    order = ORDER.model_copy(update={"terms": OrderTerms(**terms)})
    doing = kept.doing or Doing(order=order)
    performer = Restart(cast(Any, node.deps()), Hands(node.hold, node.again))
    return performer, Work(doing, kept, lambda text: None)


async def test_a_restart_leaves_traffic_first_and_comes_back_as_it_was(tmp_path: Path) -> None:
    node = Node(tmp_path)
    performer, work = restart_of(node, KeptOrders(tmp_path))
    outcome = await performer.perform(work)
    assert node.did == ["weight 0", "stop", "start", "look", "weight 20"]
    assert outcome.reason.startswith("OpenClaw 2026.7.35 runs as pid 8, ")
    assert node.holds == 0
    plain = Node(tmp_path)
    performer, work = restart_of(plain, KeptOrders(tmp_path / "b"), drain=False)
    tmp_path.joinpath("b").mkdir()
    await performer.perform(work)
    assert plain.did == ["stop", "start", "look"]


async def test_a_restart_that_cannot_drain_leaves_everything_as_it_was(tmp_path: Path) -> None:
    node = Node(tmp_path, busy=True)
    performer, work = restart_of(node, KeptOrders(tmp_path))
    with pytest.raises(Exception, match="still in hand after 1 s: answering bob"):
        await performer.perform(work)
    assert node.did == ["weight 0", "weight 40"]
    assert not work.begun


@pytest.mark.parametrize("killed_after", ["noted", "begun", "stopped", "started"])
async def test_after_a_kill_a_restart_is_finished_and_not_done_twice(
    tmp_path: Path, killed_after: str
) -> None:
    """What the next agent finds: its own start brings a stopped gateway back before it looks at its orders."""
    node, kept = Node(tmp_path), KeptOrders(tmp_path)
    _, work = restart_of(node, kept)
    await work.note(weight=40, before=[7, 1.0])
    node.percent = 0
    if killed_after != "noted":
        await work.begin()
    if killed_after == "stopped":
        node.alive_now = None
    if killed_after == "started":
        node.alive_now = Pid(8, 2.0)
    again = KeptOrders(tmp_path)
    await asyncio.to_thread(again.load)
    performer, resumed = restart_of(node, again)
    await performer.perform(resumed)
    restarts = {"noted": 1, "begun": 1, "stopped": 0, "started": 0}[killed_after]
    assert node.did.count("stop") == restarts
    assert node.alive_now == Pid(8, 2.0)
    assert node.percent == 20


async def test_an_agent_that_is_stopped_in_mid_restart_leaves_the_traffic_to_its_successor(
    tmp_path: Path,
) -> None:
    node, kept = Node(tmp_path, starting=asyncio.Event()), KeptOrders(tmp_path)
    performer, work = restart_of(node, kept)
    task = asyncio.create_task(performer.perform(work))
    assert node.starting is not None
    await node.starting.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert node.did == ["weight 0", "stop"]
    node.starting = None
    performer, resumed = restart_of(node, kept)
    await performer.perform(resumed)
    assert node.did == ["weight 0", "stop", "start", "look", "weight 20"]


class FakeRunner:
    def __init__(self, phase: Phase, *, upgrade: str = "u1", over: bool = True) -> None:
        self.asked: list[str] = []
        self.record: Any = SimpleNamespace(
            upgrade=upgrade, label="2026.9.6", phase=phase, over=over, reason="it broke"
        )
        self.ends = Phase.ROLLED_BACK

    async def roll_back(self, reason: str) -> Any:
        self.asked.append(reason)
        if self.record.phase is Phase.ROLLED_BACK:
            raise ConflictError("there is nothing to roll back from")
        self.record = SimpleNamespace(**{**vars(self.record), "phase": self.ends, "over": True})
        return self.record


async def test_a_rollback_undoes_one_upgrade_once(tmp_path: Path) -> None:

    order = OpenOrder(
        id="0123abcd:a", kind="rollback", created_by="ann", terms=OrderTerms(reason="slow")
    )
    kept, runner = KeptOrders(tmp_path), FakeRunner(Phase.DONE)
    work = Work(Doing(order=order), kept, lambda text: None)
    performer = Rollback(cast(Any, runner))
    outcome = await performer.perform(work)
    assert (outcome.failed, runner.asked) == (False, ["ordered by ann: slow"])
    again = await performer.perform(work)
    assert (again.reason, len(runner.asked)) == (outcome.reason, 1)
    runner.record = SimpleNamespace(**{**vars(runner.record), "upgrade": "u2", "phase": Phase.DONE})
    with pytest.raises(ConflictError, match="u2 began since; u1 was meant"):
        await performer.perform(work)
    stuck = FakeRunner(Phase.DONE)
    stuck.ends = Phase.STUCK
    bad = await Rollback(cast(Any, stuck)).perform(
        Work(Doing(order=order), kept, lambda text: None)
    )
    assert (bad.failed, bad.reason) == (True, "upgrade u1 to 2026.9.6 is stuck: it broke")


def test_a_bundle_fits_and_keeps_the_newest_lines() -> None:
    lines = [f'{number} "{"x" * 290}"' for number in range(2000)]
    tails = [Tail(f"/logs/{number}", lines) for number in range(20)]
    bundle = make_bundle("a", LogReport(), tails, 1.0)
    assert len(bundle.canonical()) < MAX_RESULT_CHARS
    assert len(bundle.canonical()) > ROOM / 2
    assert all(file.lines[-1] == lines[-1] for file in bundle.files)
    assert bundle.left_out == 16 * 2000 - sum(len(file.lines) for file in bundle.files)


def test_the_end_of_a_log_is_read_beside_the_reading_and_only_if_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    path.write_bytes(b"one\ntwo\nthree\nhalf")
    me = path.stat().st_uid
    follower = Follower(lambda: path, frozenset({me}))
    assert follower.tail(1000) == [b"one", b"two", b"three"]
    assert follower.tail(11) == [b"three"]
    with pytest.raises(UntrustedError, match="belongs to uid"):
        Follower(lambda: path, frozenset({me + 1})).tail(1000)
    assert follower.read() == [b"one", b"two", b"three"], "the reading is where it was"


RECORD = (
    b'{"0":"{\\"subsystem\\":\\"gateway\\"}","1":"ready","_meta":{"date":"2026-11-21T00:38:44Z",'
    b'"logLevelName":"INFO","path":{"fullFilePath":"file:///trees/mine/x.js"}}}'
)


def test_a_line_of_the_log_is_for_people_and_of_this_node_alone() -> None:
    def ours(path: str) -> bool:
        return path.startswith("/trees/mine/")

    assert readable(RECORD, ours) == "2026-11-21T00:38:44Z INFO [gateway] ready"
    assert readable(RECORD.replace(b"mine", b"other"), ours) == ""
    assert readable(b"  Error: boom  ", ours) == "Error: boom"
    assert readable(b"\0\0", ours) == ""
    assert readable(b'{"broken', ours) == ""
