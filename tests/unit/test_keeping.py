"""What may go, and whether there is a way back: decisions on made-up nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent.layout import Layout
from agent.store import Store
from agent.upgrade.bookmark import DAY_S, Bookmark, Bookmarks, Keeping, SavedFolder, which_go
from agent.upgrade.keeper import Keeper
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from shared.clock import SystemClock
from shared.report import Standing
from shared.wayback import Facts, foresee, judge_way_back
from tests.unit.test_journal import TARGET

NOW = 100 * DAY_S
SAVED = [SavedFolder(original="/s", copy_name="0-s", sha256="a" * 64)]


def bookmark(
    name: str, days_ago: float, previous: str = "b" * 64, *, empty: bool = False
) -> Bookmark:
    return Bookmark(
        upgrade=name,
        previous=previous,
        previous_version="2026.7.35",
        created=NOW - days_ago * DAY_S,
        weight=100,
        readiness={},
        installed="",
        folders=[] if empty else SAVED,
    )


def going(bookmarks: list[Bookmark], *needed: str, good: str | None = None) -> set[str]:
    return set(which_go(bookmarks, Keeping(3, 30), NOW, needed=set(needed), good=good))


def test_bookmarks_go_by_count_and_by_age() -> None:
    five = [bookmark(str(number), number) for number in range(5)]
    assert going(five) == {"3", "4"}
    assert going([bookmark("old", 31), bookmark("new", 1)]) == {"old"}


def test_what_a_rollback_may_need_never_goes() -> None:
    five = [bookmark(str(number), 40 + number) for number in range(5)]
    assert going(five, "4") == {"0", "1", "2", "3"}
    leading = [*five, bookmark("good", 99, previous="c" * 64)]
    assert "good" not in going(leading, good="c" * 64)


def test_a_bookmark_without_a_copy_goes_once_its_upgrade_has_ended() -> None:
    assert going([bookmark("dropped", 0, empty=True)]) == {"dropped"}
    assert going([bookmark("moving", 0, empty=True)], "moving") == set()


FACTS = Facts(
    previous="b" * 64,
    previous_whole=True,
    schema_before="1/1",
    schema_after="18/23",
    blocked=(),
    state_bytes=100 << 20,
    free_bytes=10 << 30,
    same_disk=True,
    snapshot_s=0.8,
    ready_s=6.0,
)


def test_a_way_back_says_what_it_means() -> None:
    answer = judge_way_back(FACTS)
    assert answer.possible
    assert answer.restores_state
    assert "1/1 becomes 18/23" in answer.reasons[0]
    assert (answer.snapshot_s, answer.rollback_s) == (0.8, 8.0)
    same = judge_way_back(replace(FACTS, schema_after="1/1"))
    assert same.possible
    assert not same.restores_state


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"previous_whole": False}, "not complete"),
        ({"blocked": ("state/openclaw.sqlite: incompatible",)}, "incompatible"),
        ({"free_bytes": 1 << 20, "same_disk": False}, "needs 110 MiB"),
    ],
)
def test_without_a_way_back_the_reason_is_named(change: dict[str, object], reason: str) -> None:
    answer = judge_way_back(replace(FACTS, **change))  # type: ignore[arg-type]
    assert not answer.possible
    assert reason in answer.reasons[0]


def test_on_one_disk_the_copy_can_be_moved_back_without_room() -> None:
    assert judge_way_back(replace(FACTS, free_bytes=0)).possible


def test_a_plan_foresees_from_what_a_node_says_of_itself() -> None:
    standing = Standing(
        release="b" * 64,
        whole=True,
        schema_versions="15/19",
        state_bytes=500 << 20,
        free_bytes=1 << 30,
        same_disk=True,
        at=NOW,
    )
    answer = foresee(standing, "15/19")
    assert answer.possible
    assert not answer.restores_state
    assert answer.snapshot_s == 5.0
    assert not foresee(standing.model_copy(update={"whole": False}), "15/19").possible


async def test_a_damaged_bookmark_goes_unless_it_is_the_one_in_use(tmp_path: Path) -> None:
    """People may still find its copies of use."""
    record = Record(
        upgrade="mine",
        target=TARGET,
        label="x",
        phase=Phase.DONE,
        status=Status.ENTERED,
        began=0,
        entered=0,
    )
    bookmarks = Bookmarks(tmp_path)
    for name in ("mine", "stray"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bookmark.json").write_bytes(b"\0" * 9)
    keeper = Keeper(
        bookmarks,
        cast(Store, None),
        Layout(tmp_path),
        SystemClock(),
        lambda: record,
        Keeping(3, 30),
        lambda: None,
    )
    assert await keeper.prune() == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["mine"]
