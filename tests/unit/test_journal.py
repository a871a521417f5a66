from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from agent.upgrade.decide import Rest, decide
from agent.upgrade.journal import Journal
from agent.upgrade.phases import FORWARD, MOVES, TERMINAL, Event, Phase
from agent.upgrade.record import (
    Entry,
    JournalError,
    Kind,
    Record,
    Status,
    fold,
    next_phase,
)
from shared.report import Target

TARGET = Target(
    order="a1b2c3d4:canary",
    rollout="a1b2c3d4",
    release="a" * 64,
    set_by="op",
    set_at=1.0,
    soak_s=5.0,
)
BEGIN = {"target": TARGET.model_dump(mode="json"), "label": "x"}


def entry(kind: Kind, phase: Phase, at: float = 1.0, **data: object) -> Entry:
    return Entry(at=at, upgrade="r1-canary", kind=kind, phase=phase, data=dict(data))


def good_story() -> list[Entry]:
    """An upgrade that ends well, as the runner writes it."""
    story = [Entry(at=0.0, upgrade="r1-canary", kind=Kind.BEGIN, phase=FORWARD[0], data=BEGIN)]
    for number, phase in enumerate(FORWARD):
        if number:
            story.append(entry(Kind.ENTER, phase, at=float(number)))
        story.append(entry(Kind.PASS, phase, at=number + 0.5))
    story.append(entry(Kind.ENTER, Phase.DONE, at=99.0))
    return story


def write(path: Path, story: list[Entry]) -> Journal:
    journal = Journal(path)
    journal.load()
    for each in story:
        journal.append(each)
    return journal


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "upgrade.log"
    written = write(path, good_story()).record
    assert Journal(path).load() == written
    assert written is not None
    assert written.over
    assert isinstance(decide(written), Rest)
    assert path.stat().st_mode & 0o777 == 0o600


def test_cut_at_every_byte_it_still_loads_a_prefix(tmp_path: Path) -> None:
    """Fault 9: a power cut leaves a torn last line, never more."""
    path, cut = tmp_path / "upgrade.log", tmp_path / "cut.log"
    write(path, good_story()[:9])
    raw = path.read_bytes()
    seen = set()
    for size in range(len(raw)):
        cut.write_bytes(raw[:size])
        journal = Journal(cut)
        record = journal.load()
        seen.add(record.phase if record else None)
        assert cut.read_bytes() == raw[: raw.rfind(b"\n", 0, size) + 1]
        if record is not None:
            entered = record.status is Status.ENTERED
            after = (
                entry(Kind.FAIL, record.phase) if entered else entry(Kind.ENTER, next_phase(record))
            )
            journal.append(after)
            assert Journal(cut).load() == journal.record
    assert seen >= {None, Phase.CLAIMED, Phase.FROZEN, Phase.STAGED}


def test_a_journal_of_zeros_is_unreadable_and_can_be_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "upgrade.log"
    path.write_bytes(b"\0" * 4096)
    journal = Journal(path)
    with pytest.raises(JournalError, match="zeros"):
        journal.load()
    kept = journal.set_aside("1")
    assert kept.exists()
    assert Journal(path).load() is None


@pytest.mark.parametrize("line", [0, 3, 7])
def test_a_changed_or_missing_line_makes_it_unreadable(tmp_path: Path, line: int) -> None:
    path = tmp_path / "upgrade.log"
    write(path, good_story()[:9])
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines.copy()
    changed[line] = changed[line].replace(b"r1-canary", b"r2-canary")
    for damaged in (changed, lines[:line] + lines[line + 1 :]):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(JournalError, match="damaged"):
            Journal(path).load()


def test_entries_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    journal = write(tmp_path / "upgrade.log", good_story()[:3])
    second = Entry(at=9.0, upgrade="r2-canary", kind=Kind.BEGIN, phase=FORWARD[0], data=BEGIN)
    with pytest.raises(JournalError, match="has not ended"):
        journal.append(second)
    with pytest.raises(JournalError, match="never began"):
        journal.append(second.model_copy(update={"kind": Kind.PASS}))
    for wrong in (
        entry(Kind.ENTER, Phase.SWITCHED),
        entry(Kind.PASS, Phase.STAGED),
        entry(Kind.REQUEST, Phase.GOOD),
    ):
        with pytest.raises(JournalError, match=r"is what follows|no way on"):
            journal.append(wrong)
    journal.append(entry(Kind.PASS, Phase.FROZEN))
    with pytest.raises(JournalError, match="passed already"):
        journal.append(entry(Kind.PASS, Phase.FROZEN))


def test_entries_are_journalled_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "upgrade.log"
    journal = write(path, good_story()[:3])
    passed, wrong = entry(Kind.PASS, Phase.FROZEN), entry(Kind.ENTER, Phase.SWITCHED)
    with pytest.raises(JournalError, match="is what follows"):
        journal.append(passed, wrong)
    assert Journal(path).load() == journal.record
    record = journal.append(passed, entry(Kind.ENTER, Phase.STAGED))
    assert (record.phase, record.fact(Phase.FROZEN, "x")) == (Phase.STAGED, None)
    assert Journal(path).load() == record
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert Journal(path).load() == fold([*good_story()[:3], passed]), "the first of them counts"


def test_a_long_journal_is_compacted_to_the_last_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "upgrade.log"
    story = good_story()
    for number in (4, 6, 8):
        story[number] = story[number].model_copy(update={"data": {"big": "x" * (1 << 19)}})
    write(path, story)
    later = Entry(at=100.0, upgrade="r2-canary", kind=Kind.BEGIN, phase=FORWARD[0], data=BEGIN)
    journal = Journal(path)
    journal.load()
    record = journal.append(later)
    assert Journal(path).load() == record
    assert path.stat().st_size < 2000
    assert Journal(path).load() == record


def run(record: Record, *outcomes: Event) -> Phase:
    """Follow the table from a record's phase."""
    phase = record.phase
    for outcome in outcomes:
        phase = MOVES[phase, outcome]
    return phase


def test_every_way_through_the_table_ends() -> None:
    reached, todo = set(), [FORWARD[0]]
    while todo:
        phase = todo.pop()
        if phase in reached:
            continue
        reached.add(phase)
        todo += [after for (before, _), after in MOVES.items() if before is phase]
    assert reached == set(Phase)
    moving = set(Phase) - TERMINAL
    assert {before for before, event in MOVES if event is Event.PASSED} == moving


def test_a_failure_before_the_outage_only_drops_the_order() -> None:
    for phase in FORWARD:
        early = phase in (Phase.CLAIMED, Phase.FROZEN, Phase.STAGED, Phase.VERIFIED)
        back = Phase.REOPENING if phase is Phase.DRAINED else Phase.ROLLING_BACK
        assert MOVES[phase, Event.FAILED] is (Phase.DROPPED if early else back)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_full_disk_the_reserve_takes_the_last_words(tmp_path: Path) -> None:
    """Fault 36, on a real file system of one megabyte."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    try:
        journal = write(tmp_path / "upgrade.log", good_story()[:3])
        with contextlib.suppress(OSError), (tmp_path / "ballast").open("wb") as ballast:
            while ballast.write(b"x" * 4096):
                ballast.flush()
        record = journal.append(entry(Kind.FAIL, Phase.FROZEN, reason="no space left " * 400))
        assert Journal(tmp_path / "upgrade.log").load() == record
    finally:
        subprocess.run(["/bin/umount", tmp_path], check=True)


def test_never_rolled_back_twice() -> None:
    assert (Phase.ROLLED_BACK, Event.REQUESTED) not in MOVES
    assert MOVES[Phase.STUCK, Event.REQUESTED] is Phase.ROLLING_BACK, "a person may try again"
    assert (Phase.ROLLING_BACK, Event.REQUESTED) not in MOVES
