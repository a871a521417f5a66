"""The history of each node's upgrades, made from what the nodes report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.store.upgrades import UpgradeQueries
from shared.clock import Clock
from shared.nodes import NodeUpgrade, UpgradeStatus
from shared.release import Release
from shared.report import NodeReport, UpgradeReport

_STATUS = {"done": UpgradeStatus.SUCCESS, "rolled_back": UpgradeStatus.ROLLED_BACK}


class UpgradeBook:
    """Remembers in memory only what it has written already, so that a heartbeat costs nothing, nor do all of them
    after a restart. `load` before anything else."""

    def __init__(
        self, queries: UpgradeQueries, clock: Clock, releases: Callable[[], Sequence[Release]]
    ) -> None:
        self._queries, self._clock, self._releases = queries, clock, releases
        self._agents: dict[str, str] = {}
        self._ended: dict[str, tuple[str, float, str]] = {}

    async def load(self) -> None:
        self._agents = await self._queries.newest_agents()
        for each in await self._queries.newest():
            self._ended[each.node] = (each.order, each.began, each.outcome)

    async def hear(self, report: NodeReport) -> None:
        """Before the report itself is kept: a coordinator that ends in between is told again."""
        node = report.node
        if self._agents.get(node) != report.agent_version:
            await self._queries.note_agent(node, report.agent_version, self._clock.now())
            self._agents[node] = report.agent_version
        upgrade = report.upgrade
        if upgrade is None or upgrade.outcome is None:
            return
        end = (upgrade.order, upgrade.began, upgrade.outcome)
        if self._ended.get(node) != end:
            await self._queries.keep(await self._entry(report, upgrade, upgrade.outcome))
            self._ended[node] = end

    async def of(self, node: str, limit: int) -> list[NodeUpgrade]:
        return await self._queries.of(node, limit)

    async def _entry(self, report: NodeReport, upgrade: UpgradeReport, outcome: str) -> NodeUpgrade:
        """Who asked for it and how stands in the rollout; so does when, and what the agent was before: its own
        upgrade comes before the gateway's."""
        rollout = await self._queries.rollout(upgrade.order.partition(":")[0])
        asked = float(rollout.get("created") or upgrade.began)
        ended = upgrade.ended
        return NodeUpgrade(
            node=report.node,
            order=upgrade.order,
            release=upgrade.release,
            label=str(rollout.get("label") or ""),
            strategy=str(rollout.get("strategy") or ""),
            from_core=upgrade.version_before,
            to_core=self._core_of(upgrade.release) or upgrade.version_after,
            from_agent=await self._queries.agent_at(report.node, asked) or report.agent_version,
            to_agent=report.agent_version,
            status=_STATUS.get(outcome, UpgradeStatus.FAILED),
            outcome=outcome,
            began=upgrade.began,
            ended=ended,
            duration_s=None if ended is None else max(0.0, round(ended - upgrade.began, 3)),
            outage_s=upgrade.outage_s,
            error="" if outcome == "done" else upgrade.reason,
            by=str(rollout.get("set_by") or ""),
        )

    def _core_of(self, release: str) -> str | None:
        found = (each.manifest.openclaw for each in self._releases() if each.id == release)
        return next(found, None)
