"""Doctor's outputs as the real package printed them, and the ones it should never get away with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.doctor import LINT, judge, run_doctor
from shared.command import Output
from shared.npm import NodeTools
from shared.readiness import CheckStatus

SAMPLES = Path(__file__).parent / "samples"


def output(stdout: bytes, code: int | None = 1, stderr: bytes = b"") -> Output:
    return Output(("openclaw", *LINT), code, stdout, stderr, 1.0)


def sample(version: str, name: str) -> Output:
    return output((SAMPLES / version / f"doctor-lint-{name}.json").read_bytes())


@pytest.mark.parametrize("version", ["2026.7.35", "2026.9.6"])
@pytest.mark.parametrize("name", ["json-fresh", "json-gwup"])
def test_a_healthy_home_passes_although_doctor_exits_1(version: str, name: str) -> None:
    reading = judge(sample(version, name))
    assert reading.status is CheckStatus.PASS
    assert {item.severity for item in reading.items} == {"warning"}


@pytest.mark.parametrize("version", ["2026.7.35", "2026.9.6"])
@pytest.mark.parametrize(
    "name",
    ["cfg-badvalue", "cfg-missing", "cfg-syntax", "cfg-unknownkey", "cfg-unreadable", "corruptdb"],
)
def test_a_broken_home_fails_with_doctors_own_words(version: str, name: str) -> None:
    reading = judge(sample(version, name))
    assert reading.status is CheckStatus.FAIL
    assert "core/doctor/" in reading.reason


def test_a_missing_config_fails_although_it_is_only_warned_of() -> None:
    assert "gateway-config" in judge(sample("2026.9.6", "cfg-missing")).reason


def test_unmigrated_state_fails() -> None:
    assert judge(sample("2026.9.6", "unmigrated")).status is CheckStatus.FAIL


def test_without_a_read_only_doctor_the_answer_is_unknown() -> None:
    said = (SAMPLES / "2026.4.15-doctor-lint.stderr.txt").read_bytes()
    reading = judge(output(b"", 1, said))
    assert reading.status is CheckStatus.UNKNOWN
    assert "2026.5.28" in reading.reason


@pytest.mark.parametrize(
    ("stdout", "code"),
    [
        (b"", 0),
        (b"Doctor complete.\n", 0),
        (b'{"ok": true}', 0),
        (b'{"ok": true, "checksRun": 35, "findings": [{"severity": "catastrophic"}]}', 0),
        (b'{"ok": true, "checksRun": 35, "findings": ["x"]}', 0),
        (b'{"ok": true, "checksRun": 3, "findings": []}', 0),
        (b'{"ok": true, "checksRun": 35, "findings": []}', 2),
        (b'{"ok": true, "checksRun": 0, "findings": [], "error": {"type": "x"}}', 1),
        (b'{"ok": true, "checksRun": 35, "findings": []}', None),
        (b"[" * 5000, 0),
    ],
)
def test_what_cannot_be_understood_is_unknown_never_green(stdout: bytes, code: int | None) -> None:
    reading = judge(output(stdout, code))
    assert reading.status is CheckStatus.UNKNOWN
    assert reading.reason


def test_noise_before_the_json_is_read_over() -> None:
    clean = sample("2026.9.6", "json-fresh").stdout
    noisy = judge(output(b"plugin says {hello} and\n[plugins] loading\n" + clean))
    assert noisy.items == judge(output(clean)).items
    assert noisy.status is CheckStatus.PASS


def test_the_order_of_findings_does_not_count() -> None:
    first = judge(
        output(
            b'{"checksRun": 30, "findings": [{"checkId": "a", "severity": "warning"},'
            b'{"checkId": "b", "severity": "warning"}]}'
        )
    )
    second = judge(
        output(
            b'{"checksRun": 30, "findings": [{"checkId": "b", "severity": "warning"},'
            b'{"checkId": "a", "severity": "warning"}, {"checkId": "a", "severity": "warning"}]}'
        )
    )
    assert first.items == second.items


async def test_a_hanging_doctor_is_killed_with_its_children(tmp_path: Path) -> None:
    """Fault 4."""
    fake = tmp_path / "node_modules" / ".bin" / "openclaw"
    fake.parent.mkdir(parents=True)
    fake.write_text(f"sleep 300 & echo $! > {tmp_path}/child; sleep 300")
    tools = NodeTools(Path("/bin/sh"), Path("/nowhere"))
    reading = await run_doctor(OpenClaw(tools, tmp_path, tmp_path), timeout_s=0.5)
    assert reading.status is CheckStatus.UNKNOWN
    assert "killed" in reading.reason
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(5):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
