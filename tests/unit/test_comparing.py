"""Hashes that agree on healthy nodes, words for those that do not, and documents that do not hold together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from agent.openclaw.doctor import judge
from agent.readiness.merge import Expected, merge
from agent.readiness.reading import Reading
from coordinator.cli import app
from scripts import schema
from shared.command import Output
from shared.comparing import diff, mismatch, verify
from shared.errors import RollcallError
from shared.messages import Verdict
from shared.readiness import (
    MAX_DOCUMENT_BYTES,
    Check,
    CheckStatus,
    DoctorItem,
    ReadinessDocument,
    encode_evidence,
    read_document,
    ready_probe_sha256,
)
from tests.unit.test_readiness import TREE

SAMPLES = Path(__file__).parent / "samples"
VERSIONS = ("2026.7.35", "2026.9.6")


def doctor(name: str) -> list[dict[str, str]]:
    """The facts that Doctor's probe makes of a sample."""
    raw = (SAMPLES / f"{name}.json").read_bytes()
    found = judge(Output(("openclaw",), 1, raw, b"", 1.0))
    return [item.model_dump(mode="json") for item in found.items]


def node(
    name: str = "a", *, items: list[dict[str, str]] | None = None, at: float = 0.0, **facts: Any
) -> ReadinessDocument:
    """A node that is green, unless its facts say otherwise. `platform` is no fact."""
    platform = facts.pop("platform", "darwin-arm64")
    running = facts.pop("core_running", facts.get("core_on_disk", TREE["core_on_disk"]))
    readings = {
        "tree": Reading(CheckStatus.PASS, facts={**TREE, **facts}, raw=name.encode()),
        "running": Reading(CheckStatus.PASS, facts={"core_running": running}, raw=b"%f" % at),
        "doctor": Reading(CheckStatus.PASS, facts={"doctor": items or []}, raw=b"{}"),
    }
    expected = [Expected(each, 60.0) for each in readings]
    made = merge(name, expected, readings, [], now=1.8e9 + at, monotonic=1.0, platform=platform)
    evidence = encode_evidence({each: reading.raw for each, reading in readings.items()})
    return made.model_copy(update={"evidence": evidence})


def value_of(document: ReadinessDocument) -> dict[str, Any]:
    return dict(json.loads(document.model_dump_json()))


@pytest.mark.parametrize("version", VERSIONS)
def test_healthy_nodes_agree_whatever_their_age_and_the_hour(version: str) -> None:
    """A node before and after the first start of its gateway; Doctor in the order it likes."""
    fresh, warm = (doctor(f"{version}/doctor-lint-json-{each}") for each in ("fresh", "gwup"))
    a = node("a", items=fresh, core_on_disk=version)
    b = node("b", items=list(reversed(warm * 2)), core_on_disk=version, at=7200.0)
    assert a.status is b.status is Verdict.GREEN
    assert a.ready_probe_sha256 == b.ready_probe_sha256
    assert a.evidence_sha256 != b.evidence_sha256
    assert diff(a, b, ("a", "b")) == mismatch(a, b, ("a", "b")) == []


@given(st.permutations(range(4)), st.permutations(["x", "y", "z"]))
def test_order_never_counts(order: list[int], plugins: list[str]) -> None:
    items = [
        {"tenant": f"t{number % 2}", "check": f"core/doctor/{number}", "severity": "warning"}
        for number in range(4)
    ]
    one = node(items=items, plugins={"x": "1", "y": "1", "z": "1"})
    other = node(items=[items[each] for each in order], plugins=dict.fromkeys(plugins, "1"))
    assert one.ready_probe_sha256 == other.ready_probe_sha256


def test_differences_are_said_in_words_the_hashed_ones_first() -> None:
    a = node("a", plugins={"discord": "1.2.0"})
    b = node(
        "b",
        items=[
            {"tenant": "default", "check": "core/doctor/x", "severity": "warning"},
            {"tenant": "t1", "check": "core/doctor/y", "severity": "error"},
        ],
        core_running="2026.7.35",
        tree_sha256="d" * 64,
        plugins={"discord": "1.3.0", "slack": "2.0.0"},
        config_schema=None,
    )
    assert [each.words for each in diff(a, b, ("a", "b"))] == [
        "core running: a has 2026.9.6, b has 2026.7.35",
        "tree: a has cccccccccccc, b has dddddddddddd",
        "config schema: a has 18/23, b has none",
        "plugin discord: a has 1.2.0, b has 1.3.0",
        "plugin slack: a has none, b has 2.0.0",
        "Doctor on b reports core/doctor/x (warning), a does not",
        "Doctor on b reports core/doctor/y (error) of tenant t1, a does not",
        "a is green, b is red (version: 2026.7.35 is running; 2026.9.6 is on disk)",
        "check version: a passes, b fails (2026.7.35 is running; 2026.9.6 is on disk)",
    ]


def test_a_check_that_only_one_has_and_what_was_left_out_are_differences() -> None:
    a = node("a")
    more = [*a.checks, Check(id="slope", status=CheckStatus.WARN)]
    b = a.model_copy(update={"node": "b", "checks": more, "excluded": ["tree"]})
    assert [each.words for each in diff(a, b, ("a", "b"))] == [
        "left out of the verdict: a has nothing, b has tree",
        "check slope: b has it, a does not",
    ]


def test_numbers_that_are_only_measured_are_no_difference() -> None:
    a = node("a")
    later = [
        each.model_copy(update={"observed": 5.0, "age_s": 9.0, "at": 3.0}) for each in a.checks
    ]
    assert diff(a, a.model_copy(update={"checks": later, "at": 1.0}), ("a", "b")) == []


def test_another_platforms_tree_is_no_mismatch_and_all_else_is() -> None:
    mac, linux = node("a"), node("b", platform="linux-x86_64", tree_sha256="d" * 64)
    assert mac.ready_probe_sha256 != linux.ready_probe_sha256
    assert mismatch(mac, linux, ("a", "b")) == []
    swapped = node("b", platform="linux-x86_64", tree_sha256="d" * 64, lock_sha256="e" * 64)
    assert [each.field for each in mismatch(mac, swapped, ("a", "b"))] == ["lock_sha256"]
    same = node("b", tree_sha256="d" * 64)
    assert [each.field for each in mismatch(mac, same, ("a", "b"))] == ["tree_sha256"]
    unsaid = node("b", platform=None, tree_sha256="d" * 64)
    assert [each.field for each in mismatch(mac, unsaid, ("a", "b"))] == ["tree_sha256"]


def test_a_tenant_that_only_one_node_has_is_no_mismatch() -> None:
    own = {"tenant": "t1", "check": "core/doctor/security", "severity": "warning"}
    assert mismatch(node("a"), node("b", items=[own]), ("a", "b")) == []
    other = {**own, "check": "core/doctor/x"}
    found = mismatch(node("a", items=[own]), node("b", items=[own, other]), ("a", "b"))
    assert [each.words for each in found] == [
        "Doctor on b reports core/doctor/x (warning) of tenant t1, a does not"
    ]


def test_a_hash_that_nothing_explains_is_a_mismatch() -> None:
    odd = node("b").model_copy(update={"ready_probe_sha256": "9" * 64})
    found = mismatch(node("a"), odd, ("a", "b"))
    assert [each.field for each in found] == ["ready_probe_sha256"]


def test_an_older_agents_findings_are_compared_by_todays_measure() -> None:
    """It hashed every finding; the hash differs, the node does not."""
    noise = DoctorItem(
        tenant="default", check="core/doctor/node-hosting-preconditions", severity="warning"
    )
    compared = node("b").comparable.model_copy(update={"doctor": [noise]})
    old = node("b").model_copy(
        update={"comparable": compared, "ready_probe_sha256": compared.ready_probe_sha256}
    )
    assert mismatch(node("a"), old, ("a", "b")) == []


def test_a_document_of_a_healthy_node_verifies() -> None:
    found = verify(value_of(node()), node())
    assert found.differences == []
    assert found.checked == ["ready_probe_sha256", "evidence_sha256", "status"]


def test_without_evidence_its_hash_is_not_checked() -> None:
    bare = node().model_copy(update={"evidence": None})
    found = verify(value_of(bare), bare)
    assert (found.unchecked, found.differences) == (["evidence_sha256"], [])


def test_fields_of_a_newer_agent_are_hashed_with_the_rest() -> None:
    value = value_of(node())
    value["comparable"]["later"] = [1, "x"]
    value["ready_probe_sha256"] = ready_probe_sha256(value["comparable"])
    assert verify(*read_document(json.dumps(value).encode())).differences == []


def change(value: dict[str, Any], place: str, new: Any) -> dict[str, Any]:
    *way, last = place.split(".")
    at: Any = value
    for part in way:
        at = at[int(part) if isinstance(at, list) else part]
    at[last] = new
    return value


@pytest.mark.parametrize(
    ("place", "new", "says"),
    [
        ("comparable.tree_sha256", "d" * 64, "ready_probe_sha256 says"),
        ("ready_probe_sha256", "0" * 64, "the comparable part gives"),
        ("evidence_sha256", "0" * 64, "the evidence gives"),
        ("evidence.tree", "AAAA", "the evidence gives"),
        ("evidence.tree", "AAAAA", "evidence.tree: not base64"),
        ("status", "red", "status says red; the checks give green"),
        ("checks.0.status", "fail", "status says green; the checks give red (tree: )"),
        ("checks.0.status", "unknown", "the checks give unknown"),
        ("checks.0.id", "doctor", "there is more than one check doctor"),
        ("checks", [], "the checks give unknown (there is no check)"),
        ("excluded", ["nothing"], "no check is called so"),
        ("comparable.core_running", "2026.7.35", "2026.7.35 is running and 2026.9.6 is on disk"),
    ],
)
def test_whatever_was_changed_is_named(place: str, new: Any, says: str) -> None:
    value = change(value_of(node()), place, new)
    found = verify(*read_document(json.dumps(value).encode()))
    assert any(says in each for each in found.differences), found.differences


def rollcall(*words: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["readiness", *words], input=given)


def written(folder: Path, document: ReadinessDocument, name: str = "") -> str:
    path = folder / f"{name or document.node}.json"
    path.write_text(document.model_dump_json())
    return str(path)


def test_verify_ends_with_1_where_something_is_named(tmp_path: Path) -> None:
    good = written(tmp_path, node())
    assert (rollcall("verify", good).exit_code, rollcall("verify", good).stdout) == (0, "")
    said = json.loads(rollcall("verify", good, "--json").stdout)
    assert (said["ok"], said["node"], said["unchecked"]) == (True, "a", [])
    bad = json.dumps(change(value_of(node()), "status", "red")).encode()
    done = rollcall("verify", "-", given=bad)
    assert (done.exit_code, done.stdout) == (1, "status says red; the checks give green\n")
    said = json.loads(rollcall("verify", "-", "--json", given=bad).stdout)
    assert (said["ok"], len(said["differences"])) == (False, 1)


def test_diff_ends_with_1_where_nodes_differ(tmp_path: Path) -> None:
    a, b = written(tmp_path, node("a")), written(tmp_path, node("b", tree_sha256="d" * 64))
    assert rollcall("diff", a, a).exit_code == 0
    done = rollcall("diff", a, b)
    assert (done.exit_code, done.stdout) == (1, "tree: a has cccccccccccc, b has dddddddddddd\n")
    said = json.loads(rollcall("diff", a, b, "--json").stdout)
    assert said["same"] is False
    assert said["differences"][0]["field"] == "tree_sha256"
    later = written(tmp_path, node("a", tree_sha256="d" * 64), "later")
    assert (
        rollcall("diff", a, later).stdout == f"tree: {a} has {'c' * 12}, {later} has {'d' * 12}\n"
    )
    assert rollcall("diff", a, "-", given=node("b").model_dump_json().encode()).exit_code == 0
    assert rollcall("diff", "-", "-").exit_code != 0


def test_the_schema_that_is_printed_is_the_stored_one() -> None:
    assert rollcall("schema").stdout == schema.page()


DEEP = b'{"schema_version":1,"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"green", "not JSON"),
        (b"[]", "is a JSON object"),
        (b"{}", "node: Field required"),
        (DEEP, "deeper than 32 levels"),
        (b'{"at": NaN}', "NaN"),
        (b'{"node": "a", "node": "b"}', "the key 'node' twice"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"at": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b'{"node": "\\ud800"}', "surrogate"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "more than 4 MiB"),
        (b'{"schema_version": 2, "anything": 1}', "it has schema_version 2"),
        (b'{"schema_version": 1e300}', "it has schema_version 1e+300"),
    ],
)
def test_bad_input_is_refused_with_a_reason(raw: bytes, says: str, tmp_path: Path) -> None:
    """Fault 2. The error names the file; what it is asked beside does not matter."""
    path = tmp_path / "given.json"
    path.write_bytes(raw)
    good = written(tmp_path, node())
    for words in (("verify", str(path)), ("diff", good, str(path))):
        done = rollcall(*words)
        assert isinstance(done.exception, RollcallError), done.exception
        assert says in str(done.exception)
        assert str(path) in str(done.exception)


def test_a_number_that_cannot_be_hashed_is_refused() -> None:
    value = change(value_of(node()), "comparable.later", 2**60)
    done = rollcall("verify", "-", given=json.dumps(value).encode())
    assert isinstance(done.exception, RollcallError)
    assert "cannot be hashed" in str(done.exception)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        done = rollcall("verify", str(path))
        assert isinstance(done.exception, RollcallError)
        assert str(path) in str(done.exception)
