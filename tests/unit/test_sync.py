from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from agent.clearing import Offered
from agent.coordinator import Coordinator
from agent.store import Store
from agent.sync import Shares, Sync
from agent.trust import Trust
from shared.clock import SystemClock
from shared.errors import UnavailableError
from shared.messages import Verdict
from shared.report import NodeReport, ReadinessSummary, SyncAnswer, SyncRequest, Target
from shared.roster import sign_roster
from shared.traffic import TrafficWord
from tests.support.trustkit import TestFleet, make_fleet
from tests.unit.test_journal import TARGET


class FakeCoordinator:
    """Answers with what the test put there; nothing means it is away."""

    def __init__(self) -> None:
        self.answer: SyncAnswer | None = None
        self.tags: list[str | None] = []

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        self.tags.append(request.traffic)
        await asyncio.sleep(0.01)
        if self.answer is None:
            raise UnavailableError("away")
        return self.answer


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    made = make_fleet(tmp_path)
    made.layout("a")
    return made


class NoRepository:
    def heard(self, number: int) -> None: ...
    def lost(self) -> None: ...


class NoClears:
    async def offer(self) -> Offered:
        return Offered([], [])

    async def answered(self, offered: Offered, stored: list[str], clears: list[str]) -> None: ...


async def heard(
    fake: FakeCoordinator,
    trust: Trust,
    path: Path,
    story: list[SyncAnswer | None],
    shares: Shares | None = None,
) -> list[Target | None]:
    """The targets that the agent was told, one after each part of the story."""
    store = await Store.open(path)
    told: list[Target | None] = []

    async def report() -> NodeReport:
        return NodeReport(
            node="a", agent_version="0", readiness=ReadinessSummary(status=Verdict.GREEN)
        )

    coordinator = cast(Coordinator, fake)
    sync = Sync(
        coordinator,
        trust,
        store,
        SystemClock(),
        report,
        told.append,
        NoRepository(),
        clears=NoClears(),
        shares=shares,
    )
    last = []
    running = asyncio.create_task(sync.run())
    for answer in story:
        fake.answer = answer
        told.clear()
        async with asyncio.timeout(60):
            while len(told) < 2:
                sync.changed()
                await asyncio.sleep(0.02)
        last.append(told[-1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    return last


async def test_a_target_is_forgotten_while_the_coordinator_is_away(fleet: TestFleet) -> None:
    """Without the coordinator nothing new starts."""
    given = SyncAnswer(generation=5, target=TARGET)
    path = fleet.layout("a").database
    assert await heard(FakeCoordinator(), fleet.trust("a"), path, [given, None, given]) == [
        TARGET,
        None,
        TARGET,
    ]


class HeardShares:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.words: list[TrafficWord | None] = []
        self.tag = ""

    def heard(self, word: TrafficWord | None) -> None:
        self.words.append(word)
        self.tag = "" if word is None else word.tag


async def test_a_share_is_heard_and_forgotten_with_the_coordinator(fleet: TestFleet) -> None:
    shares, word = HeardShares(), TrafficWord(frozen="a fair is on")
    given = SyncAnswer(generation=5, traffic=word)
    path = fleet.layout("a").database
    fake = FakeCoordinator()
    await heard(fake, fleet.trust("a"), path, [given, None], shares)
    assert shares.words[0] == word
    assert shares.words[-1] is None
    assert word.tag in fake.tags
    assert fake.tags[0] == ""


async def test_a_newer_roster_is_taken_and_an_older_one_is_not(fleet: TestFleet) -> None:
    trust = fleet.trust("a")
    newer = sign_roster(fleet.roster(revoked=("b",), epoch=7), fleet.roster_key).decode()
    older = sign_roster(fleet.roster(epoch=6), fleet.roster_key).decode()
    answers: list[SyncAnswer | None] = [
        SyncAnswer(generation=1, roster=newer),
        SyncAnswer(generation=2, roster=older),
    ]
    await heard(FakeCoordinator(), trust, fleet.layout("a").database, answers)
    assert trust.roster.epoch == 7
    assert trust.peer_names() == ["c"]
