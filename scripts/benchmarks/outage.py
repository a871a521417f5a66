"""Seconds that a gateway of the real OpenClaw does not answer while it is upgraded, and while it is taken
back. docs/decisions/0014 says how that is measured, and why so.

- `upgrade_equal_vs_floor`, `upgrade_migrating_vs_floor`: ours beside the same gateway stopped and started
  with the new tree, with OpenClaw's own `doctor --fix --non-interactive` between where the schema changes.
- `upgrade_vs_openclaw_update`: ours beside `openclaw update`, of the migrating pair; the equal pair's is
  called `upgrade_equal_vs_openclaw_update`.
- `rollback_vs_floor`: `rollcall-agent rollback` of the migrating upgrade beside the gateway stopped, its
  state put back with `cp -a`, and the old tree started.

Ours comes first in odd rounds and after `openclaw update` in even ones; the floor stays last, on trees that
have been run, so that nothing is cold for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.benchmarks.frame import Options, Sample
from scripts.benchmarks.outages import Silence
from scripts.benchmarks.sides import Floor, OpenClawUpdate, Ours, Stand
from scripts.minifleet.fleet import REAL, MiniFleet
from scripts.minifleet.workspace import Workspace
from shared.roster import Role
from shared.terminal import say


@dataclass(frozen=True)
class Pair:
    """Two versions, and the figures that they give."""

    before: str
    after: str
    migrates: bool
    floor: str
    update: str


PAIRS = {
    "equal": Pair(
        "2026.8.2",
        "2026.9.2",
        migrates=False,
        floor="upgrade_equal_vs_floor",
        update="upgrade_equal_vs_openclaw_update",
    ),
    "migrating": Pair(
        "2026.7.35",
        "2026.9.6",
        migrates=True,
        floor="upgrade_migrating_vs_floor",
        update="upgrade_vs_openclaw_update",
    ),
}
"""State and agent schemas 15/19 on both sides, and 1/1 to 18/23. Of 9.1, which has 15/19 too, `npm ci`
refuses the lock that npm itself has made: platforms' optional packages are missing in it."""

ROLLBACK = "rollback_vs_floor"
PATIENT = replace(
    REAL, ready_timeout_s=300, doctor_timeout_s=300, prove_timeout_s=300, red_after_s=600
)
"""On a busy machine everything is late, and nothing is measured by a deadline that ends it."""


async def run(options: Options) -> list[Sample]:
    samples: list[Sample] = []
    for name in PAIRS if options.pair == "all" else [options.pair]:
        fleet = MiniFleet(Workspace(), PATIENT, standin=False, mdns=False, roles=(Role.CANARY,))
        try:
            samples += await _Run(fleet, PAIRS[name], options.rounds).measure()
        finally:
            await fleet.close()
    return samples


@dataclass
class _Seen:
    """What each side's gateway did in one round, by the side's name."""

    outages: dict[str, Silence] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def note(self, name: str, work: Awaitable[tuple[Silence, dict[str, Any]]]) -> None:
        outage, detail = await work
        self.outages[name] = outage
        self.details[name] = {**outage.document(), **detail}
        say(f"  {name}: {outage.seconds:.2f} s; {detail.get('spent_s')}")

    def sample(self, figure: str, ours: str, rival: str) -> Sample:
        detail = {"ours": self.details[ours], "rival": self.details[rival]}
        return Sample(figure, self.outages[ours].seconds, self.outages[rival].seconds, "s", detail)


class _Run:
    """All rounds of one pair, on one fleet of one node."""

    def __init__(self, fleet: MiniFleet, pair: Pair, rounds: int) -> None:
        self._fleet, self._pair, self._rounds = fleet, pair, rounds
        self._stand = Stand(fleet, fleet.root / "template")

    async def measure(self) -> list[Sample]:
        pair = self._pair
        say(f"{pair.before} to {pair.after}: freezing, and installing {pair.before}")
        await self._fleet.open()
        before = await self._fleet.freeze(pair.before)
        after = [
            await self._fleet.freeze(pair.after, name=f"{pair.after}+{number}")
            for number in range(1, self._rounds + 1)
        ]
        await self._fleet.until_found()
        written = await self._stand.make_template(before, fix=not self._pair.migrates)
        say(f"a state with {written >> 20} MiB of transcripts is the template")
        samples: list[Sample] = []
        for number, release in enumerate(after, start=1):
            say(f"round {number} of {self._rounds}")
            samples += await self._round(before, release, turned=number % 2 == 0)
        return samples

    async def _round(self, before: str, after: str, *, turned: bool) -> list[Sample]:
        pair, seen = self._pair, _Seen()
        sides: list[Callable[[], Awaitable[None]]] = [
            lambda: self._ours(seen, after),
            lambda: self._update(seen),
        ]
        for side in reversed(sides) if turned else sides:
            await side()
        await self._floor(seen, before, after)
        samples = [
            seen.sample(pair.floor, "our upgrade", "floor's upgrade"),
            seen.sample(pair.update, "our upgrade", "openclaw update"),
        ]
        if pair.migrates:
            samples.append(seen.sample(ROLLBACK, "our rollback", "floor's rollback"))
        return samples

    async def _ours(self, seen: _Seen, after: str) -> None:
        side = Ours(self._stand)
        await side.begin()
        await seen.note("our upgrade", side.upgrade(after))
        await seen.note("our rollback", side.roll_back())
        await side.end()

    async def _update(self, seen: _Seen) -> None:
        side = OpenClawUpdate(self._stand)
        await seen.note("openclaw update", side.upgrade(self._pair.before, self._pair.after))

    async def _floor(self, seen: _Seen, before: str, after: str) -> None:
        side = Floor(self._stand, migrates=self._pair.migrates)
        await seen.note("floor's upgrade", side.upgrade(before, after))
        if self._pair.migrates:
            await seen.note("floor's rollback", side.roll_back(before))
        await side.end()
