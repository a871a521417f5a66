"""The document as it is handed out: from memory, by its schema, and never with old readings that look fresh."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.shown import describe_document
from agent.readiness.history import History
from agent.readiness.merge import compare
from agent.readiness.monitor import Monitor
from agent.readiness.publishing import Published
from agent.readiness.reading import Reading, unknown
from scripts import schema
from shared.errors import BadInputError
from shared.messages import Verdict
from shared.readiness import (
    MAX_EVIDENCE,
    Check,
    CheckStatus,
    DoctorItem,
    ReadinessDocument,
    decode_evidence,
    document_schema,
    evidence_sha256,
    steady,
    without,
)
from tests.conftest import ManualClock
from tests.unit.test_readiness import READINGS

VALID = jsonschema_rs.validator_for(document_schema())


class Told:
    """A probe that answers what the test has put there, and counts."""

    timeout_s, stale_after_s = 1.0, 60.0

    def __init__(self, name: str, answer: Reading, period_s: float = 10.0) -> None:
        self.id, self.answer, self.period_s = name, answer, period_s
        self.asked = 0
        self.until: asyncio.Event | None = None

    async def read(self) -> Reading:
        self.asked += 1
        if self.until is not None:
            await self.until.wait()
        return self.answer


class CountingGuard:
    def __init__(self) -> None:
        self.judged = 0

    def judge(self, history: History, now: float) -> Check:
        self.judged += 1
        return Check(id="slope", status=CheckStatus.WARN, reason="too little", inconclusive=True)


class Bench:
    """A monitor on a clock that the test moves."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.guard = clock, CountingGuard()
        self.probes = {name: Told(name, reading) for name, reading in READINGS.items()}
        self.changes = 0
        self.monitor = Monitor(
            "a",
            list(self.probes.values()),
            clock,
            self._changed,
            history=History(),
            guards=[self.guard],
        )

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


async def test_within_a_second_the_very_same_document_is_handed_out(bench: Bench) -> None:
    await bench.monitor.refresh()
    first = bench.monitor.published()
    bench.clock.advance(0.9)
    assert bench.monitor.published() is first
    bench.clock.advance(0.2)
    second = bench.monitor.published()
    assert second.document.at == pytest.approx(first.document.at + 1.1)
    assert second.document.checks[0].age_s == pytest.approx(1.1)
    assert second.body != first.body
    assert second.etag == first.etag, "only times and ages differ"


async def test_a_reading_that_says_something_else_is_in_the_document_at_once(bench: Bench) -> None:
    await bench.monitor.refresh()
    first, changes = bench.monitor.published(), bench.changes
    tree = bench.probes["tree"]
    tree.answer = replace(tree.answer, status=CheckStatus.FAIL, reason="a file was changed")
    reading = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    seen = bench.monitor.published()
    assert seen.document.status is Verdict.RED
    assert seen.etag != first.etag
    assert bench.changes == changes + 1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_a_kept_document_does_not_hide_that_a_reading_has_grown_old(bench: Bench) -> None:
    """Fault 5, on request: the document is kept for a second, or until a reading's limit if that is sooner."""
    await bench.monitor.refresh()
    bench.clock.advance(59.7)
    assert bench.monitor.document().status is Verdict.GREEN
    bench.clock.advance(0.31)
    seen = bench.monitor.document()
    assert seen.status is Verdict.UNKNOWN
    assert "the last reading is older than 60 s" in seen.reason
    changes, reason = bench.changes, seen.reason
    bench.clock.advance(30)
    assert (bench.monitor.document().reason, bench.changes) == (reason, changes), "told once"


async def test_that_a_reading_has_grown_old_is_told_though_nobody_asks(bench: Bench) -> None:
    for probe in bench.probes.values():
        probe.period_s = 1e9
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(0.01)
    before = bench.changes
    for _ in range(9):
        bench.clock.advance(10)
        await asyncio.sleep(0.01)
    assert bench.changes > before
    assert all(probe.asked == 1 for probe in bench.probes.values())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_unknown_is_read_again_soon_and_less_and_less_often(bench: Bench) -> None:
    """A Doctor that looks once an hour, and was late once on a busy host."""
    doctor = bench.probes["doctor"]
    doctor.period_s, answer = 3600.0, doctor.answer
    doctor.answer = unknown("no answer within 20 s")
    running = asyncio.create_task(bench.monitor.run())
    asked_at: list[int] = []
    for second in range(0, 700, 10):
        await asyncio.sleep(0.005)
        asked_at += [second] * (doctor.asked - len(asked_at))
        bench.clock.advance(10)
    assert asked_at == [0, 10, 30, 70, 150, 310, 630]
    doctor.answer = answer
    for _ in range(66):
        bench.clock.advance(10)
        await asyncio.sleep(0.005)
    assert doctor.asked == len(asked_at) + 1
    for _ in range(140):
        bench.clock.advance(10)
        await asyncio.sleep(0.001)
    assert doctor.asked == len(asked_at) + 1, "what is known waits for its turn"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_reading_that_is_fresh_again_counts_at_once(bench: Bench) -> None:
    await bench.monitor.refresh()
    bench.clock.advance(61)
    assert bench.monitor.document().status is Verdict.UNKNOWN
    running = asyncio.create_task(bench.monitor.run())
    await asyncio.sleep(0.01)
    assert bench.monitor.document().status is Verdict.GREEN
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_guards_judge_once_a_second_at_most(bench: Bench) -> None:
    await bench.monitor.refresh()
    judged = bench.guard.judged
    for _ in range(10):
        bench.clock.advance(0.3)
        bench.monitor.document()
    assert judged + 2 <= bench.guard.judged <= judged + 3
    await bench.monitor.refresh()
    document = bench.monitor.document()
    assert document.checks[-1].inconclusive
    assert document.status is Verdict.GREEN, "a warning"


async def test_what_was_being_read_when_the_gateway_went_says_nothing(bench: Bench) -> None:
    tree = bench.probes["tree"]
    tree.until = asyncio.Event()
    reading = asyncio.create_task(bench.monitor.refresh(["tree"]))
    await asyncio.sleep(0.01)
    bench.monitor.pause()
    tree.until.set()
    await reading
    assert bench.monitor.document().checks[0].reason == "not read yet"
    await bench.monitor.refresh()
    assert bench.monitor.document().status is Verdict.GREEN


async def test_reading_facts_again_leaves_out_what_brings_none(bench: Bench) -> None:
    bench.probes["running"].answer = replace(READINGS["running"], facts={})
    await bench.monitor.refresh()
    await bench.monitor.refresh_facts()
    assert {name: probe.asked for name, probe in bench.probes.items()} == {
        "tree": 2,
        "running": 1,
        "doctor": 2,
    }


async def test_evidence_is_bounded_and_its_hash_covers_what_is_kept(bench: Bench) -> None:
    bench.probes["doctor"].answer = replace(READINGS["doctor"], raw=b"x" * (MAX_EVIDENCE + 5))
    await bench.monitor.refresh()
    document = bench.monitor.published().verbose()
    assert document.evidence is not None
    evidence = decode_evidence(document.evidence)
    assert len(evidence["doctor"]) == MAX_EVIDENCE
    assert evidence_sha256(evidence) == document.evidence_sha256
    assert evidence["tree"] == READINGS["tree"].raw


@pytest.mark.parametrize(
    "ids", [[], ["running"], ["doctor", "tree", "running", "version", "slope"]]
)
async def test_every_document_fits_its_schema(bench: Bench, ids: list[str]) -> None:
    for ready in (False, True):
        if ready:
            await bench.monitor.refresh()
        published = bench.monitor.published()
        for each in (published.document, published.verbose()):
            shown = without(each, ids).model_copy(update={"nonce": "0" * 64})
            VALID.validate(json.loads(shown.model_dump_json()))


@given(st.data())
def test_whatever_probes_bring_the_document_fits_its_schema(data: st.DataObject) -> None:
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    number = st.floats(allow_nan=False, allow_infinity=False)
    checks = st.builds(
        Check,
        id=text,
        status=st.sampled_from(CheckStatus),
        observed=st.none() | number | text,
        unit=st.none() | text,
        limit=st.none() | number | text,
        at=st.none() | number,
        age_s=st.none() | number,
        reason=text,
    )
    document = published().document.model_copy(
        update={"checks": data.draw(st.lists(checks, max_size=3)), "reason": data.draw(text)}
    )
    VALID.validate(json.loads(document.model_dump_json()))


def published(**changed: object) -> Published:
    document = ReadinessDocument(
        node="a",
        platform="darwin-arm64",
        status=Verdict.GREEN,
        reason="",
        at=1.8e9,
        checks=[Check(id="tree", status=CheckStatus.PASS, observed=1.0, age_s=3.0)],
        comparable=compare(READINGS),
        ready_probe_sha256="a" * 64,
        evidence_sha256="b" * 64,
    )
    return Published(document.model_copy(update=changed), {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "amber"},
        {"schema_version": 2},
        {"ready_probe_sha256": "a"},
        {"checks": [{"id": "tree"}]},
        {"evidence": {"tree": "?"}},
        {"comparable": {}},
    ],
)
def test_the_schema_refuses_what_no_document_is(wrong: dict[str, object]) -> None:
    value = json.loads(published().body)
    assert VALID.is_valid(value)
    assert not VALID.is_valid({**value, **wrong})


def test_the_stored_schema_is_the_models() -> None:
    assert schema.PAGE.read_text() == schema.page(), "write it anew: python -m scripts.schema"
    jsonschema_rs.Draft202012Validator(document_schema())


def test_an_etag_is_another_where_the_document_says_something_else() -> None:
    same = published()
    measured = [Check(id="tree", status=CheckStatus.PASS, observed=2.0, age_s=9.0)]
    assert published(at=1.9e9, checks=measured, evidence_sha256="c" * 64).etag == same.etag
    assert same.etag.startswith('W/"')
    others: list[dict[str, object]] = [
        {"status": Verdict.RED},
        {"reason": "x"},
        {"ready_probe_sha256": "c" * 64},
        {"node": "b"},
        {"checks": [Check(id="tree", status=CheckStatus.WARN)]},
        {"checks": [Check(id="tree", status=CheckStatus.PASS, inconclusive=True)]},
        {"checks": []},
    ]
    assert len({same.etag, *(published(**each).etag for each in others)}) == len(others) + 1


def test_a_check_that_is_left_out_is_named_and_counts_no_more() -> None:
    checks = [
        Check(id="tree", status=CheckStatus.FAIL, reason="changed"),
        Check(id="doctor", status=CheckStatus.UNKNOWN, reason="no answer"),
        Check(id="gateway", status=CheckStatus.PASS),
    ]
    document = published(checks=checks).document
    assert without(document, ["tree"]).status is Verdict.UNKNOWN
    green = without(document, ["tree", "doctor", "tree"])
    assert (green.status, green.reason) == (Verdict.GREEN, "")
    assert green.excluded == ["doctor", "tree"]
    assert green.checks == checks, "it is still seen"
    assert without(document, ["tree", "doctor", "gateway"]).status is Verdict.UNKNOWN
    with pytest.raises(BadInputError, match="no check is called 'tre'") as caught:
        without(document, ["tre"])
    assert caught.value.remedy == "one of doctor, gateway, tree"


def test_of_doctors_findings_the_hash_covers_what_the_release_decides() -> None:
    """In whatever order they were found, once each, without notes and without what is about the host."""

    def item(check: str, severity: str, tenant: str = "default") -> DoctorItem:
        return DoctorItem(tenant=tenant, check=f"core/doctor/{check}", severity=severity)

    kept = [item("security", "warning"), item("security", "warning", "t1"), item("x", "error")]
    noise = [
        item("anything", "info"),
        item("heartbeat-cadence-migration", "warning"),
        item("gateway-health", "warning"),
    ]
    assert steady([*noise, *reversed(kept), *kept]) == sorted(
        kept, key=lambda each: (each.tenant, each.check)
    )
    assert steady([item("legacy-state", "error")]), "an error is one whatever its check"


def test_a_person_sees_a_line_a_check_and_what_it_rests_on_when_asked() -> None:
    check = Check(
        id="memory",
        status=CheckStatus.WARN,
        observed=float(550 << 20),
        unit="bytes",
        limit=float(4 << 30),
        age_s=3.0,
        reason="it grows",
    )
    document = published(
        checks=[check, Check(id="tree", status=CheckStatus.PASS, observed="2026.9.6")]
    )
    shown = without(document.document, ["tree"])
    plain = describe_document(shown, verbose=False)
    assert plain[:3] == [
        "a is green",
        "  warn    memory  it grows",
        "  pass    tree    2026.9.6 (left out of the verdict)",
    ]
    seen = Published(shown, {"memory": b"12345", "tree": b""}).verbose()
    told = describe_document(seen, verbose=True)
    assert told[2].strip() == "550 MiB, limit 4096 MiB, read 3 s ago, 5 bytes of evidence"
    assert told[-1].endswith(shown.evidence_sha256)
