from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from agent.readiness.guards import Ceiling
from agent.readiness.history import History
from agent.readiness.merge import Expected, merge
from agent.readiness.monitor import Monitor
from agent.readiness.reading import Reading, unknown
from shared.errors import CommandError
from shared.messages import Verdict
from shared.readiness import CheckStatus, ReadinessDocument
from tests.conftest import ManualClock

TREE = {
    "release": "a" * 64,
    "core_on_disk": "2026.9.6",
    "plugins": {},
    "lock_sha256": "b" * 64,
    "tree_sha256": "c" * 64,
    "config_schema": "18/23",
}
READINGS = {
    "tree": Reading(CheckStatus.PASS, facts=TREE, raw=b"tree", monotonic=100.0),
    "running": Reading(
        CheckStatus.PASS, facts={"core_running": "2026.9.6"}, raw=b"2026.9.6", monotonic=100.0
    ),
    "doctor": Reading(
        CheckStatus.PASS,
        facts={"doctor": [{"tenant": "default", "check": "x", "severity": "warning"}]},
        raw=b'{"ts": 1}',
        monotonic=100.0,
    ),
}
EXPECTED = [Expected(name, 60.0) for name in READINGS]


def document(
    readings: dict[str, Reading], *, at: float = 101.0, node: str = "a"
) -> ReadinessDocument:
    return merge(node, EXPECTED, readings, [], now=1.8e9 + at, monotonic=at)


def test_green_only_when_everything_has_spoken() -> None:
    assert document(READINGS).status is Verdict.GREEN
    for name in READINGS:
        missing = {key: reading for key, reading in READINGS.items() if key != name}
        assert document(missing).status is not Verdict.GREEN
        assert "not read yet" in document(missing).reason


def test_a_stale_reading_says_nothing() -> None:
    """Fault 5."""
    late = document(READINGS, at=161.0)
    assert late.status is Verdict.UNKNOWN
    assert "says nothing" in late.reason


def test_unknown_is_not_green_and_a_failure_outranks_it() -> None:
    one = {**READINGS, "doctor": replace(unknown("no answer"), monotonic=100.0)}
    assert document(one).status is Verdict.UNKNOWN
    both = {**one, "tree": replace(READINGS["tree"], status=CheckStatus.FAIL, reason="changed")}
    assert document(both).status is Verdict.RED


def test_running_another_version_than_on_disk_is_red_whatever_else_is_green() -> None:
    old = replace(READINGS["running"], facts={"core_running": "2026.7.35"})
    seen = document({**READINGS, "running": old})
    assert seen.status is Verdict.RED
    assert "2026.7.35 is running; 2026.9.6 is on disk" in seen.reason


def test_nodes_clocks_and_raw_bytes_do_not_change_the_comparable_hash() -> None:
    """Fault 6: two healthy nodes on one release have the same `ready_probe_sha256`."""
    here = document(READINGS)
    raw = replace(READINGS["doctor"], raw=b'{"ts": 2}', at=5.0)
    there = document({**READINGS, "doctor": raw}, at=130.0, node="b")
    assert here.ready_probe_sha256 == there.ready_probe_sha256
    assert here.evidence_sha256 != there.evidence_sha256


@pytest.mark.parametrize("field", ["core_on_disk", "lock_sha256", "tree_sha256", "config_schema"])
def test_a_difference_in_the_tree_changes_the_hash(field: str) -> None:
    other = "2026.9.5" if field == "core_on_disk" else "d" * 64
    changed = replace(READINGS["tree"], facts={**TREE, field: other})
    assert (
        document({**READINGS, "tree": changed}).ready_probe_sha256
        != document(READINGS).ready_probe_sha256
    )


def test_the_document_travels_unchanged() -> None:
    sent = document(READINGS)
    assert ReadinessDocument.from_bytes(sent.model_dump_json().encode()) == sent
    assert json.loads(sent.model_dump_json())["schema_version"] == 1


def test_a_ceiling_lets_go_only_well_below_its_limit() -> None:
    ceiling = Ceiling(100)
    assert ceiling.judge(100, None) is CheckStatus.PASS
    assert ceiling.judge(101, CheckStatus.PASS) is CheckStatus.FAIL
    assert ceiling.judge(97, CheckStatus.FAIL) is CheckStatus.FAIL
    assert ceiling.judge(95, CheckStatus.FAIL) is CheckStatus.PASS


class StubProbe:
    """Answers what it is told to; a reading, an error, or nothing in time."""

    period_s, timeout_s, stale_after_s = 10.0, 0.05, 60.0

    def __init__(self, name: str, answer: Reading | Exception | None) -> None:
        self.id, self.answer = name, answer

    async def read(self) -> Reading:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.sleep(60)
        assert isinstance(self.answer, Reading)
        return self.answer


async def test_a_late_or_failing_probe_is_unknown_with_its_reason(clock: ManualClock) -> None:
    probes = [StubProbe("tree", CommandError("npm broke")), StubProbe("running", None)]
    changes: list[int] = []
    monitor = Monitor(
        "a",
        list(probes),
        clock,
        lambda: changes.append(1),
        history=History(),
        guards=[],
    )
    seen = await monitor.refresh()
    assert seen.status is Verdict.UNKNOWN
    assert "npm broke" in seen.reason
    assert "no answer within" in seen.reason
    assert changes


async def test_while_the_gateway_is_away_nothing_is_known_and_nothing_is_read(
    clock: ManualClock,
) -> None:
    monitor = Monitor(
        "a",
        [StubProbe("tree", READINGS["tree"])],
        clock,
        lambda: None,
        history=History(),
        guards=[],
    )
    await monitor.refresh()
    monitor.pause()
    reading = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.05)
    assert monitor.document().checks[0].status is CheckStatus.UNKNOWN
    monitor.resume()
    async with asyncio.timeout(60):
        while monitor.document().checks[0].status is CheckStatus.UNKNOWN:
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
