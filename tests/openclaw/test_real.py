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
def test_two_real_gateways_move_and_a_third_takes_itself_back() -> None:
    """Canary and stable migrate their state from schema 1 to 18 and are attested by everyone. On the
    witness the release never gets ready: its state goes back by the copy that was made of it."""
    code, report = demo("--break", "witness", "--how", "ready")
    assert (code, report["outcome"]) == (4, "halted"), report["reason"]
    nodes = {node["name"]: node for node in report["nodes"]}
    for name in ("canary", "stable"):
        node = nodes[name]
        assert (node["phase"], node["readiness"]) == ("done", "green")
        assert (node["version_before"], node["running_version"]) == (report["from"], report["to"])
        assert set(node["attested_by"]) == set(nodes) - {name}
        assert set(node["acks"]) == set(nodes) - {name}
        assert node["outage_s"] > 0
        assert node["frozen"]
    assert nodes["canary"]["ready_probe_sha256"] == nodes["stable"]["ready_probe_sha256"]
    witness = nodes["witness"]
    assert (witness["rolled_back"], witness["frozen"]) == (True, False)
    assert (witness["readiness"], witness["running_version"]) == ("green", report["from"])
    assert "not ready within" in witness["reason"]
    assert [red["origin"] for red in report["reds"]] == ["witness"]
    assert set(report["reds"][0]["acked_by"]) == {"canary", "stable"}
