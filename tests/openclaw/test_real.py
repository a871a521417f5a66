"""The main job on the real OpenClaw, by the command that README shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.openclaw

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 1500


def demo(*words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.minifleet.demo", "--json", *words],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout, done.stderr.decode()[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.mark.timeout(LIMIT_S + 60)
def test_three_real_gateways_move_and_are_attested() -> None:
    code, report = demo()
    assert (code, report["outcome"]) == (0, "succeeded"), report["reason"]
    names = {node["name"] for node in report["nodes"]}
    assert names == {"canary", "stable", "witness"}
    for node in report["nodes"]:
        assert node["version_before"] == report["from"]
        assert node["running_version"] == report["to"]
        assert set(node["attested_by"]) == names - {node["name"]}
        assert node["outage_s"] > 0
    assert len({node["ready_probe_sha256"] for node in report["nodes"]}) == 1
    assert report["reds"] == []


@pytest.mark.timeout(LIMIT_S + 60)
def test_a_bad_release_of_the_real_one_is_taken_back_by_the_node_itself() -> None:
    """A migrated state, schema 1 to 18, goes back by the copy that was made of it."""
    code, report = demo("--break", "canary", "--how", "ready")
    assert (code, report["outcome"]) == (4, "halted"), report["reason"]
    nodes = {node["name"]: node for node in report["nodes"]}
    assert nodes["canary"]["rolled_back"]
    assert nodes["canary"]["readiness"] == "green"
    assert {node["running_version"] for node in report["nodes"]} == {report["from"]}
    assert [name for name, node in nodes.items() if node["frozen"]] == ["stable", "witness"]
    assert set(report["reds"][0]["acked_by"]) == {"stable", "witness"}
