"""Doctor's outputs as the real package printed them, and the ones it should never get away with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.doctor import LINT, judge, run_doctor, run_doctors
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
    async with asyncio.timeout(60):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


def fake_doctor(folder: Path, script: str) -> OpenClaw:
    """Doctor as a shell script; what it was called with is in `$*`."""
    fake = folder / "node_modules" / ".bin" / "openclaw"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'echo "$*" >> {folder}/calls\n{script}')
    return OpenClaw(NodeTools(Path("/bin/sh"), Path("/nowhere")), folder, folder)


def test_the_doctor_of_a_profile_reads_as_any_other() -> None:
    said = (SAMPLES / "2026.9.6" / "profile-t1-doctor-lint.json").read_bytes()
    reading = judge(output(said), tenant="t1")
    assert reading.status is CheckStatus.PASS
    assert {item.tenant for item in reading.items} == {"t1"}


async def test_each_tenant_has_its_doctor_one_after_the_other(tmp_path: Path) -> None:
    healthy, broken = (
        SAMPLES / "2026.9.6" / f"doctor-lint-{name}.json" for name in ("json-fresh", "corruptdb")
    )
    openclaw = fake_doctor(
        tmp_path,
        f"mkdir {tmp_path}/busy || exit 9; sleep 0.1; rmdir {tmp_path}/busy\n"
        f'case "$*" in *t2*) cat {broken};; *) cat {healthy};; esac; exit 1',
    )
    for name in ("t1", "t2"):
        (tmp_path / f".openclaw-{name}").mkdir()
    good = await run_doctors(openclaw, ["t1"], timeout_s=10)
    assert (good.status, good.reason) == (CheckStatus.PASS, "")
    assert {item.tenant for item in good.items} == {"default", "t1"}
    reading = await run_doctors(openclaw, ["t1", "t2"], timeout_s=10)
    assert reading.status is CheckStatus.FAIL
    assert reading.reason.startswith("tenant t2: core/doctor/")
    assert (tmp_path / "calls").read_text().splitlines()[-3:] == [
        "doctor --lint --json",
        "--profile t1 doctor --lint --json",
        "--profile t2 doctor --lint --json",
    ]


async def test_a_profile_that_does_not_exist_is_unknown_and_not_asked(tmp_path: Path) -> None:
    """OpenClaw itself would only warn."""
    said = SAMPLES / "2026.9.6" / "doctor-lint-json-fresh.json"
    openclaw = fake_doctor(tmp_path, f"cat {said}; exit 1")
    (tmp_path / ".openclaw-link").symlink_to(tmp_path)
    for name, why in (("tpyo", "does not exist"), ("link", "a link")):
        reading = await run_doctors(openclaw, [name], timeout_s=10)
        assert reading.status is CheckStatus.UNKNOWN
        assert f"tenant {name}: " in reading.reason
        assert why in reading.reason
        assert "gateway.tenants" in reading.reason
    assert "--profile" not in (tmp_path / "calls").read_text()
