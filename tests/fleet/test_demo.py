"""The demo as its user sees it: its report, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.minifleet.workspace import processes_in

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "scripts.minifleet.demo"]


def workspace_of(text: str) -> Path:
    start = text.index("/tmp/rollcall-fleet-")
    return Path(text[start:].split(maxsplit=1)[0])


def test_the_stand_in_moves_over_mdns_and_the_report_is_whole() -> None:
    done = subprocess.run(
        [*DEMO, "--stand-in", "--json"], cwd=ROOT, capture_output=True, timeout=480, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    report = json.loads(done.stdout)
    assert report["outcome"] == "succeeded"
    assert (report["from"], report["to"]) == ("2026.7.35", "2026.9.6")
    ways = set(report["discovery"].split(", "))
    assert ways <= {"mdns", "static", "coordinator", "peer", "remembered"}
    assert report["overhead_s"] > 0
    wanted = {
        "name", "role", "phase", "version_before", "version_after", "running_version", "outage_s",
        "ready_probe_sha256", "attested_by", "acks", "rolled_back", "frozen",
    }  # fmt: skip
    for node in report["nodes"]:
        assert wanted <= set(node)
        assert (node["version_after"], node["running_version"]) == ("2026.9.6", "2026.9.6")
        assert len(node["attested_by"]) == len(node["acks"]) == 2
        assert not node["frozen"]
        assert not node["rolled_back"]
    assert [node["role"] for node in report["nodes"]] == ["canary", "stable", "witness"]
    workspace = workspace_of(done.stderr.decode())
    assert not workspace.exists()
    assert processes_in(workspace) == []


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "freezing"),
        pytest.param(signal.SIGINT, "target set", marks=pytest.mark.slow),
        (signal.SIGKILL, "installing"),
    ],
)
def test_ended_at_any_moment_it_leaves_nothing_behind(number: signal.Signals, line: str) -> None:
    """Ctrl-C cleans up itself; after a SIGKILL the janitor does."""
    process = subprocess.Popen(
        [*DEMO, "--stand-in", "--static"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = ""
    for text in process.stdout:
        said += text
        if line in text:
            break
    assert line in said
    time.sleep(1.0)
    os.kill(process.pid, number)
    process.stdout.close()
    code = process.wait(timeout=150)
    assert code == (130 if number is signal.SIGINT else -signal.SIGKILL)
    workspace = workspace_of(said)
    ends = time.monotonic() + 150
    while (workspace.exists() or processes_in(workspace)) and time.monotonic() < ends:
        time.sleep(0.2)
    assert not workspace.exists()
    assert processes_in(workspace) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "1.0;rm -rf ~"], "is not an OpenClaw version"),
        (["--from", "2026.9.6"], "same version"),
        (["--break", "everyone"], "invalid choice"),
    ],
)
def test_wrong_words_are_a_usage_error(words: list[str], said: str) -> None:
    done = subprocess.run([*DEMO, *words], cwd=ROOT, capture_output=True, timeout=150, check=False)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_version_that_does_not_exist_says_so_and_cleans_up() -> None:
    done = subprocess.run(
        [*DEMO, "--to", "2026.9.999"], cwd=ROOT, capture_output=True, timeout=480, check=False
    )
    assert done.returncode == 1
    text = done.stderr.decode()
    assert "npm knows no openclaw@2026.9.999" in text
    assert "Traceback" not in text
    assert not workspace_of(done.stdout.decode()).exists()
