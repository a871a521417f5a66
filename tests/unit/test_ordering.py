"""The agent's side of an order: claimed once, done once, told until it is heard, whatever is killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from agent.config import UpgradeConfig
from agent.orders.claims import UpgradeClaims
from agent.orders.decide import Now, hold_back
from agent.orders.kept import KeptOrders, Outcome
from agent.orders.ordering import Ordering
from agent.orders.performer import Performer, Work
from shared.clock import SystemClock
from shared.errors import ConflictError, UnavailableError
from shared.fleet import Refusal
from shared.freezing import By, Freeze
from shared.http import RefusedError
from shared.orders import (
    NodeOrders,
    Notice,
    OpenOrder,
    OrderKind,
)
from shared.wire import Wire
from tests.unit.test_journal import TARGET

ORDER = OpenOrder(id="0123abcd:a", kind="restart", created_by="ann [1]")


def listed(*orders: OpenOrder, notices: list[Notice] | None = None) -> NodeOrders:
    tag = ",".join(order.id for order in orders)
    return NodeOrders(tag=tag, orders=list(orders), notices=notices or [])


@dataclass
class Door:
    """The coordinator as far as orders go. `away` and `refuse` are by verb."""

    heard: list[tuple[str, str, str]] = field(default_factory=list)
    ended: list[tuple[str, bool, str]] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)

    async def order(self, order: str, verb: str, asked: Wire, key: str) -> None:
        await asyncio.sleep(0)
        if verb != "update":
            self.heard.append((verb, order, key))
        if verb in self.away:
            raise UnavailableError("no answer from the coordinator")
        if verb in self.refuse:
            status, code = self.refuse[verb]
            raise RefusedError(status, Refusal(title=code, detail=f"no: {code}", code=code))
        if verb == "complete":
            said = cast(Any, asked)
            self.ended.append((order, said.failed, said.reason))

    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.heard]


@dataclass
class Acts:
    """A performer that does one thing; a test says where it stops."""

    kind: ClassVar[str] = "restart"
    did: list[str] = field(default_factory=list)
    stop: str = ""
    error: Exception | None = None
    here: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def eta_s(self) -> float:
        return 30

    async def perform(self, work: Work) -> Outcome:
        await self._reach("before")
        if not work.begun:
            await work.begin(thing=1)
        await self._reach("begun")
        if "done" not in work.facts:
            self.did.append(work.order.id)
            await work.note(done=True)
        await self._reach("done")
        if self.error is not None:
            raise self.error
        return Outcome(reason="done")

    async def _reach(self, place: str) -> None:
        if self.stop == place:
            self.here.set()
            await asyncio.Event().wait()


class Agent:
    """One life of an agent after another over the same home."""

    def __init__(self, home: Path) -> None:
        self.home, self.door, self.acts = home, Door(), Acts()
        self.holds: str = ""

    def ordering(self) -> Ordering:
        performers: list[Performer] = [self.acts]
        self.now = Ordering(
            KeptOrders(self.home),
            self.door,
            performers,
            lambda kind: self.holds,
            SystemClock(),
            lambda: None,
        )
        return self.now

    def settled(self) -> bool:
        """Nothing is in hand, and nothing owed: durable."""
        path = self.home / "orders.json"
        return path.exists() and b'"doing":null' in path.read_bytes()

    @asynccontextmanager
    async def life(self, told: NodeOrders | None) -> AsyncIterator[Ordering]:
        ordering = self.ordering()
        ordering.told(told)
        running = asyncio.create_task(ordering.run())
        try:
            yield ordering
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


async def until(good: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not good():
            await asyncio.sleep(0.01)


async def test_an_order_is_claimed_done_and_told(agent: Agent) -> None:
    async with agent.life(listed(ORDER)):
        await until(lambda: agent.door.ended)
        assert agent.door.verbs() == ["claim", "complete"]
        assert agent.acts.did == [ORDER.id]
        await asyncio.sleep(0.1)
    assert agent.door.ended == [(ORDER.id, False, "done")]


@pytest.mark.parametrize("where", ["before", "begun", "done"])
async def test_killed_anywhere_it_is_done_once_and_told_once(agent: Agent, where: str) -> None:
    agent.acts.stop = where
    async with agent.life(listed(ORDER)):
        await agent.acts.here.wait()
    agent.acts.stop = ""
    async with agent.life(listed(ORDER)):
        await until(lambda: agent.door.ended and agent.settled())
    async with agent.life(listed(ORDER)):
        await asyncio.sleep(0.1)
    assert agent.acts.did == [ORDER.id]
    assert agent.door.verbs() == ["claim", "complete"]


async def test_what_was_claimed_and_not_noted_is_claimed_again(agent: Agent) -> None:
    """Killed between the answer and the note: the order still stands as open in the list."""
    agent.door.away = {"claim"}
    async with agent.life(listed(ORDER)) as ordering:
        await until(lambda: "cannot be claimed" in ordering.waiting)
        await until(lambda: agent.door.verbs().count("claim") >= 2)
    keys = {key for verb, _, key in agent.door.heard if verb == "claim"}
    assert len(keys) == 1, "one claim, said again"
    agent.door.away = set()
    async with agent.life(listed(ORDER)):
        await until(lambda: agent.door.ended)
    assert agent.acts.did == [ORDER.id]


async def test_the_end_is_told_until_it_is_heard_also_by_the_next_agent(agent: Agent) -> None:
    agent.door.away = {"complete"}
    async with agent.life(listed(ORDER)):
        await until(lambda: "complete" in agent.door.verbs())
    agent.door.away = set()
    async with agent.life(None):
        await until(lambda: agent.door.ended)
    keys = {key for verb, _, key in agent.door.heard if verb == "complete"}
    assert keys == {f"{ORDER.id}/complete"}
    assert agent.acts.did == [ORDER.id]


async def test_an_end_that_nobody_wants_is_not_told_for_ever(agent: Agent) -> None:
    agent.door.refuse = {"complete": (409, "conflict")}
    async with agent.life(listed(ORDER)):
        await until(agent.settled)
    async with agent.life(listed(ORDER)):
        await asyncio.sleep(0.1)
    assert agent.door.verbs() == ["claim", "complete"]
    assert agent.acts.did == [ORDER.id]


async def test_without_the_coordinator_nothing_is_taken_up(agent: Agent) -> None:
    ordering = agent.ordering()
    ordering.told(listed(ORDER))
    ordering.lost()
    assert ordering.heard_orders == "", "the list is asked for anew"
    running = asyncio.create_task(ordering.run())
    await asyncio.sleep(0.1)
    assert agent.door.heard == []
    ordering.told(listed(ORDER))
    await until(lambda: agent.door.ended)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_refused_claim_waits_with_its_reason(agent: Agent) -> None:
    agent.door.refuse = {"claim": (409, "conflict")}
    async with agent.life(listed(ORDER)) as ordering:
        await until(lambda: ordering.waiting)
        assert ordering.waiting == (
            f"order {ORDER.id} (restart) waits: the claim was refused: no: conflict"
        )
        assert agent.acts.did == []
        agent.door.refuse = {}
        ordering.told(NodeOrders(tag=""))
        await until(lambda: not ordering.waiting)


async def test_an_order_that_waits_keeps_no_other_back(agent: Agent) -> None:
    other = OpenOrder(id="89abcdef:a", kind="sing")
    agent.holds = "hand: not now"
    async with agent.life(listed(ORDER, other)) as ordering:
        await until(lambda: agent.door.ended)
        assert agent.door.ended == [(other.id, True, "this agent cannot sing")]
        await until(lambda: ordering.waiting)
        assert ordering.waiting == f"order {ORDER.id} (restart) waits: hand: not now"
        agent.holds = ""
        await until(lambda: agent.acts.did)


async def test_taken_back_in_time_it_is_dropped_and_past_the_point_it_is_finished(
    agent: Agent,
) -> None:
    agent.acts.stop = "before"
    async with agent.life(listed(ORDER)) as ordering:
        await agent.acts.here.wait()
        ordering.told(NodeOrders(tag=""))
        await until(agent.settled)
    assert agent.acts.did == []
    assert agent.door.verbs() == ["claim"]
    later = OpenOrder(id="89abcdef:a", kind="restart")
    agent.acts.stop, agent.acts.here = "begun", asyncio.Event()
    async with agent.life(listed(later)) as ordering:
        await agent.acts.here.wait()
        ordering.told(NodeOrders(tag=""))
        await asyncio.sleep(0.1)
    agent.acts.stop = ""
    async with agent.life(None):
        await until(lambda: agent.door.ended)
    assert agent.acts.did == [later.id]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConflictError("the port is taken", remedy="free it"), "the port is taken (free it)"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
async def test_what_goes_wrong_is_the_orders_reason(
    agent: Agent, error: Exception, said: str
) -> None:
    agent.acts.error = error
    async with agent.life(listed(ORDER)):
        await until(lambda: agent.door.ended)
    assert agent.door.ended == [(ORDER.id, True, said)]


async def test_an_unreadable_note_is_put_aside_and_notices_are_alerts(agent: Agent) -> None:
    agent.home.joinpath("orders.json").write_text("{")
    notice = Notice(order=ORDER.id, kind="not_claimed", text="order x: not claimed", at=1)
    async with agent.life(listed(ORDER, notices=[notice])) as ordering:
        await until(lambda: agent.door.ended)
        assert ordering.alerts == ["order x: not claimed"]
    assert agent.home.joinpath("orders.json.unreadable").read_text() == "{"


def freeze(by: By) -> Freeze:
    return Freeze(by=by, who="ann", why="because", since=0, node="a", key="b:1:1")


def test_what_a_frozen_node_still_does() -> None:
    red, hand = [freeze(By.RED)], [freeze(By.HAND)]
    free = Now([], green=True, moving="")
    assert not any(hold_back(kind, free) for kind in OrderKind)
    assert hold_back("restart", Now(red, green=True, moving=""))
    assert not hold_back("restart", Now(red, green=False, moving="")), "it can only help"
    assert hold_back("restart", Now(hand, green=False, moving=""))
    assert hold_back("restart", Now([], green=True, moving="u1")) == "upgrade u1 moves this node"
    assert not hold_back("rollback", Now(red, green=True, moving="u1"))
    assert hold_back("rollback", Now(hand, green=True, moving=""))
    assert not hold_back("collect_logs", Now(hand, green=True, moving="u1"))
    assert hold_back("install_capability", Now(red, green=True, moving=""))


async def test_an_upgrade_is_claimed_once_while_the_coordinator_keeps_to_it() -> None:
    door = Door(away={"claim"})
    claims = UpgradeClaims(door, UpgradeConfig())
    assert "cannot be claimed: no answer" in await claims.claim(TARGET)
    door.away = set()
    assert await claims.claim(TARGET) == ""
    assert await claims.claim(TARGET) == ""
    assert len(door.heard) == 2
    assert len({key for _, _, key in door.heard}) == 1
    claims.lost()
    door.refuse = {"claim": (409, "conflict")}
    assert "was refused: no: conflict" in await claims.claim(TARGET)
    door.refuse = {"claim": (404, "http")}
    assert await claims.claim(TARGET) == "", "a coordinator from before claims"
