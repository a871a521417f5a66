"""Trends on their way to the coordinator's people, and not into what everybody watches."""

from __future__ import annotations

from coordinator.cli.nodetext import describe
from shared.messages import Verdict
from shared.report import NodeReport, ReadinessSummary, Trend
from shared.rollout import NodeView
from tests.support.coordinatorkit import Running, joined, sync

MIB = 1 << 20


async def test_trends_are_shown_for_a_node_and_are_not_sent_to_watchers(running: Running) -> None:
    layout = await joined(running, "a")
    memory = Trend(name="memory_bytes", unit="bytes", values=[None, 700.0 * MIB, 900.0 * MIB])
    await sync(
        layout,
        NodeReport(
            node="a",
            agent_version="0",
            readiness=ReadinessSummary(status=Verdict.GREEN),
            trends=[memory],
        ),
    )
    (node,) = (await running.get("/v1/nodes"))["nodes"]
    lines = describe(NodeView.from_value(node))
    assert lines[0].startswith("a (stable): OpenClaw not running, green, heard ")
    assert lines[-1] == "  memory     ▁█ 900 MiB (700 MiB to 900 MiB)"
    (watched,) = (await running.get("/v1/watch"))["nodes"]
    assert watched["trends"] == []
