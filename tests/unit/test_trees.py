"""Old trees: what may go, and that nothing goes which somebody needs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import OpenClawConfig
from agent.layout import Layout
from agent.openclaw.tree import SEAL, seal_tree
from agent.service.base import Pid, ServiceSpec
from agent.trees import GONE, STALE_S, USERS, Need, Tree, Trees, may_go
from agent.upgrade.bookmark import Bookmark, Bookmarks
from agent.upgrade.lastgood import note_good
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from shared.durable import switch_link
from shared.sizes import Watermark, parse_watermark
from tests.conftest import ManualClock
from tests.unit.test_journal import TARGET

A, B, C, D, E = (letter * 64 for letter in "abcde")
names = st.sampled_from([A, B, C, D, E])


@given(
    ids=st.lists(names, unique=True),
    must=st.frozensets(names),
    wish=st.frozensets(names),
    keep=st.integers(2, 6),
    low=st.booleans(),
)
def test_what_is_needed_stays_and_the_newest_of_the_rest(
    ids: list[str], must: frozenset[str], wish: frozenset[str], keep: int, low: bool
) -> None:
    trees = [Tree(each, float(at)) for at, each in enumerate(ids)]
    gone = may_go(trees, Need(must, wish), keep, low=low)
    assert not set(gone) & must
    left = [tree for tree in trees if tree.id not in gone]
    if low:
        assert {tree.id for tree in left} <= must
        return
    assert not set(gone) & wish
    if gone:
        assert len(left) == max(keep, len({*ids} & (must | wish)))
    spare = [tree.at for tree in left if tree.id not in must | wish]
    oldest_left = min(spare, default=float("inf"))
    assert all(tree.at < oldest_left for tree in trees if tree.id in gone)


@dataclass
class Gateway:
    """A service of which only the process counts."""

    pid: Pid | None = None

    async def alive(self) -> Pid | None:
        return self.pid

    async def start(self, spec: ServiceSpec) -> Pid:
        raise NotImplementedError

    async def stop(self, timeout_s: float) -> None:
        raise NotImplementedError


@dataclass
class Host:
    """A store with five trees, each a second younger than the one before."""

    place: Path
    clock: ManualClock = field(default_factory=ManualClock)
    service: Gateway = field(default_factory=Gateway)

    def __post_init__(self) -> None:
        self.store = self.place / "store"
        self.store.mkdir()
        self.record: Record | None = None
        self.pruned = 0
        for age, each in enumerate((A, B, C, D, E)):
            (self.store / each).mkdir()
            (self.store / each / "x").write_text("x")
            seal_tree(self.store / each, each, [])
            os.utime(self.store / each, (1000.0 + age, 1000.0 + age))

    def agent(self, name: str = "one", current: str | None = E, **changes: Any) -> Trees:
        layout = Layout(self.place / name, self.store)
        layout.make()
        if current is not None:
            switch_link(layout.current, self.store / current)
        paths = {"node": Path("/node"), "npm": Path("/npm")}
        config = OpenClawConfig(**{**paths, "disk_watermark": Watermark(bytes=1), **changes})
        state = self.place / name / "state"
        bookmarks = Bookmarks(layout.bookmarks)
        return Trees(
            config,
            layout,
            state,
            bookmarks,
            self.service,
            self.clock,
            lambda: self.record,
            self.prune,
        )

    async def prune(self) -> None:
        self.pruned += 1

    def left(self) -> list[str]:
        return sorted(path.name for path in self.store.iterdir() if len(path.name) == 64)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def record(phase: Phase, **facts: Any) -> Record:
    return Record(
        upgrade="u1",
        target=TARGET.model_copy(update={"release": A}),
        label="x",
        phase=phase,
        status=Status.PASSED if phase is Phase.DONE else Status.ENTERED,
        began=1.0,
        entered=1.0,
        evidence={Phase.CLAIMED: facts},
    )


async def made(host: Host, *args: Any, **changes: Any) -> Trees:
    return await asyncio.to_thread(lambda: host.agent(*args, **changes))


async def test_the_newest_stay_and_nothing_is_left_of_the_others(host: Host) -> None:
    trees = await made(host)
    await trees.tidy()
    assert host.left() == [C, D, E]
    assert list(host.store.glob(f"{GONE}*")) == []


async def test_current_last_good_and_what_a_bookmark_leads_back_to_stay(host: Host) -> None:
    trees = await made(host, current=C)
    await asyncio.to_thread(note_good, host.place / "one", A, 1.0)
    book = Bookmarks(host.place / "one" / "bookmarks")
    saved = Bookmark(
        upgrade="u0",
        previous=B,
        previous_version=None,
        created=1.0,
        weight=1,
        readiness={},
        installed="",
    )
    await asyncio.to_thread(book.write, saved)
    await trees.tidy()
    assert host.left() == [A, B, C]


async def test_a_full_disk_takes_all_but_current_and_last_good(host: Host) -> None:
    trees = await made(host, disk_watermark=Watermark(percent=99))
    await asyncio.to_thread(note_good, host.place / "one", A, 1.0)
    await trees.tidy()
    assert host.left() == [A, E]


async def test_what_another_agent_needs_stays(host: Host) -> None:
    one, two = await made(host), await made(host, "two", A)
    await two.prepare(B)
    await one.tidy()
    assert host.left() == [A, B, E]


async def test_a_silent_agent_keeps_what_it_runs_and_one_that_is_gone_nothing(host: Host) -> None:
    one, two, three = await made(host), await made(host, "two", A), await made(host, "three", B)
    await two.prepare(C)
    await three.prepare(D)
    (host.place / "three" / "current").unlink()
    host.clock.advance(STALE_S + 1)
    low = Watermark(percent=99)
    one = await made(host, disk_watermark=low)
    await one.tidy()
    assert host.left() == [A, E]


async def test_a_lease_that_cannot_be_read_keeps_everything(host: Host) -> None:
    trees = await made(host)
    (host.store / USERS).mkdir()
    (host.store / USERS / "x.json").write_text("{")
    await trees.tidy()
    assert host.left() == [A, B, C, D, E]


async def test_nothing_goes_while_an_upgrade_goes_on_or_an_older_gateway_runs(host: Host) -> None:
    trees = await made(host)
    host.record = record(Phase.MIGRATED, previous=B)
    await trees.tidy()
    assert host.pruned == 0
    host.record = record(Phase.DONE)
    host.service.pid = Pid(1, 1.0)
    await trees.tidy()
    assert (host.pruned, host.left()) == (1, [A, B, C, D, E])
    host.service.pid = Pid(1, 1e12)
    await trees.tidy()
    assert host.left() == [C, D, E]


async def test_room_is_made_before_an_upgrade_and_not_out_of_its_own_trees(host: Host) -> None:
    host.record = record(Phase.CLAIMED)
    trees = await made(host, disk_watermark=Watermark(percent=99))
    await trees.prepare(A)
    assert host.left() == [A, E]


async def test_a_core_that_a_plugin_is_linked_to_stays(host: Host) -> None:
    trees = await made(host)
    modules = host.place / "one/state/npm/projects/p/node_modules/@openclaw/discord/node_modules"
    modules.mkdir(parents=True)
    (modules / "openclaw").symlink_to(host.store / A / "node_modules" / "openclaw")
    await trees.tidy()
    assert host.left() == [A, D, E]


async def test_what_a_killed_agent_did_not_delete_goes_later(host: Host) -> None:
    (host.store / f"{GONE}x").mkdir()
    (host.store / f"{GONE}x" / "file").write_text("x")
    await (await made(host)).tidy()
    assert not (host.store / f"{GONE}x").exists()


async def test_trees_are_whole_or_gone_when_killed_in_between(host: Host) -> None:
    """A renamed tree is no release any more, and what still has its name still has its seal."""
    trees = await made(host)
    await asyncio.to_thread(trees._take_away, False, set(), None)
    assert all((host.store / each / SEAL).exists() for each in host.left())
    assert len(list(host.store.glob(f"{GONE}*"))) == 2


@pytest.mark.parametrize("text", ["", "10", "100%", "-1%", "1GB", "0x1%", "1e3MiB"])
def test_a_watermark_says_its_unit(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of disk space"):
        parse_watermark(text)


def test_a_watermark_in_percent_or_bytes() -> None:
    assert parse_watermark("10%").of(200) == 20
    assert parse_watermark("2MiB").of(200) == 2 << 20
