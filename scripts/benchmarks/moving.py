"""Our side of `rollout` with real agents: a fleet that moves from version to version, one node after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from coordinator.cli.client import Client
from scripts.minifleet.fleet import STANDIN, MiniFleet
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.report import UpgradeReport
from shared.rollout import Rollout, RolloutState
from shared.roster import Role

LOOK_S = 0.1
"""Between the three looks at a gateway that has just been started, on both sides."""
POLL_S = 0.5
LIMIT_S = 900.0
WORK = ("staged", "verified", "drained", "snapshotted", "migrated", "restarted", "proven")
"""Phases whose time is not ours; rollout.py says why."""

PACE = replace(
    STANDIN,
    ready_timeout_s=60,
    doctor_timeout_s=60,
    prove_timeout_s=60,
    prove_interval_s=LOOK_S,
    red_after_s=600,
    mismatch_after_s=600,
)
"""Bounds that a busy host does not reach."""


@dataclass(frozen=True)
class Moved:
    """One move of all nodes: seconds in all, and of the work, by what was done."""

    total_s: float
    work_s: dict[str, float] = field(default_factory=dict)
    other_s: dict[str, float] = field(default_factory=dict)
    """What else was timed; it is within the overhead."""

    @property
    def overhead_s(self) -> float:
        return max(0.0, self.total_s - sum(self.work_s.values()))

    def document(self) -> dict[str, object]:
        return {
            "total_s": round(self.total_s, 3),
            "work_s": _rounded(self.work_s),
            "other_s": _rounded(self.other_s),
        }


def _rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds, 3) for name, seconds in times.items()}


def spent_on(upgrades: Iterable[UpgradeReport]) -> tuple[dict[str, float], dict[str, float]]:
    """The phases of all nodes, added up: those of the work, and the others."""
    spent: dict[str, float] = {}
    for upgrade in upgrades:
        for phase, seconds in upgrade.spent_s.items():
            spent[phase] = spent.get(phase, 0.0) + seconds
    work = {phase: seconds for phase, seconds in spent.items() if phase in WORK}
    return work, {phase: seconds for phase, seconds in spent.items() if phase not in WORK}


def roles_of(size: int) -> tuple[Role, ...]:
    return (Role.CANARY, *[Role.STABLE] * (size - 2), Role.WITNESS)


class OurFleet:
    def __init__(self, fleet: MiniFleet) -> None:
        self._fleet = fleet

    async def move(self, version: str) -> Moved:
        release = await self._fleet.freeze(version)
        rollout, total = await move_to(self._fleet, release)
        view = await self._fleet.watch()
        upgrades = [
            node.upgrade
            for node in view.nodes
            if node.upgrade is not None and node.upgrade.order.startswith(f"{rollout.id}:")
        ]
        if len(upgrades) != len(self._fleet.nodes):
            raise RollcallError(f"{len(upgrades)} of {len(self._fleet.nodes)} nodes have moved")
        return Moved(total, *spent_on(upgrades))


async def move_to(fleet: MiniFleet, release: str) -> tuple[Rollout, float]:
    """Node after node. Returns the rollout, and the seconds that it lasted. Raises RollcallError unless it succeeds."""
    name = await fleet.set_target(release, strategy="rolling", soak_s=0)
    client = Client(fleet.config)
    async with asyncio.timeout(LIMIT_S):
        while True:
            await asyncio.sleep(POLL_S)
            fleet.supervisor.check()
            rollout = Rollout.from_bytes(
                await client.ask("GET", f"/v1/rollouts/{name}"), max_bytes=32 << 20
            )
            if rollout.state is not RolloutState.RUNNING:
                break
    if rollout.state is not RolloutState.SUCCEEDED or rollout.ended is None:
        raise RollcallError(f"our rollout is {rollout.state}: {rollout.reason}")
    return rollout, rollout.ended - rollout.created


@asynccontextmanager
async def our_fleet(size: int, version: str) -> AsyncIterator[OurFleet]:
    """So many agents with a gateway each, all on this version of the stand-in."""
    fleet = MiniFleet(Workspace(), PACE, standin=True, mdns=False, roles=roles_of(size))
    try:
        await fleet.open()
        await fleet.install(version)
        yield OurFleet(fleet)
    finally:
        await fleet.close()
