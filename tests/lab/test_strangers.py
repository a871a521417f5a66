"""Fault 34 on a real network: a host that multicasts ten thousand nodes that are none, and false addresses of one
that is."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from agent.layout import Layout
from agent.trust import load_trust
from scripts.lab.fleet import LabFleet, until_heard
from scripts.lab.network import ROOT, Network
from shared.command import run_command

FAKES = 10_000
EVIL = "evil"
GROWTH = 96 << 20
MORE_DESCRIPTORS = 32
DIALS_PER_S = 30
"""Of twenty thousand addresses that are told in seconds. Eight are kept, and tried again when there is a new one."""
FOUND_S = 30.0


async def run(network: Network, *argv: str) -> str:
    """On the evil host."""
    output = await run_command(
        [*network.before(EVIL), *argv],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
        timeout_s=60,
    )
    assert output.code == 0, output.last_line()
    return output.stdout.decode()


async def dialled(network: Network) -> int:
    """Packets that began a connection with the evil host."""
    said = await run(network, "iptables", "-w", "-nvxL", "INPUT")
    line = next(each for each in said.splitlines() if "tcp" in each)
    return int(line.split()[0])


async def test_ten_thousand_fake_peers_cost_little_and_the_true_one_is_found(
    tmp_path: Path,
) -> None:
    async with (
        Network(["n0", "n1", EVIL]) as network,
        LabFleet(tmp_path, ["n0", "n1"], network, ["--discover"]) as fleet,
    ):
        n0, n1 = fleet.nodes["n0"], fleet.nodes["n1"]
        trust = await asyncio.to_thread(load_trust, Layout(tmp_path / "n0"))
        await n1.stop()
        await run(network, "iptables", "-w", "-A", "INPUT", "-p", "tcp", "--syn")
        before, began = await n0.do("footprint"), time.monotonic()
        flood = [sys.executable, "-m", "tests.support.mdnsflood"]
        tag = trust.fleet.fleet[:8]
        await run(network, *flood, tag, str(FAKES), network.host(EVIL), "n1")
        after, took = await n0.do("footprint"), time.monotonic() - began
        dials = await dialled(network)
        assert 0 < dials <= took * DIALS_PER_S, "it heard them, and did not run after each"
        assert after["rss"] - before["rss"] < GROWTH
        assert after["descriptors"] - before["descriptors"] < MORE_DESCRIPTORS
        red = (await n0.do("red", reason="for the true one"))["key"]
        await n1.start()
        await until_heard([n1], red, FOUND_S)
        await n0.until_linked(["n1"], FOUND_S)
