"""What it takes to move N nodes one after the other, beyond the work itself; beside Ansible with `serial: 1`.

- `overhead_n3_vs_ansible`, `overhead_n10_vs_ansible`: N real agents with gateways of the stand-in, from one version to
  the next, without a soak. Each round goes on to one more version: the first changes the schema of the state.
- `overhead_n100_vs_ansible`: a real coordinator, and 100 nodes that say and sign what agents do over mutual TLS and do
  nothing (players.py). Three of them are the witnesses. Beside as many tasks as above that run /bin/true.

Seconds in all, not for each node. Neither side's program counts before it begins: ours lasts from the moment that the
coordinator has stored the rollout until it has stored its end, of Ansible's what `--list-tasks` takes is taken out.

Both do the same steps on one node after the other, and what the steps themselves take, as each side has timed it, is
taken out on both:
- making ready while the old gateway serves: npm ci, `npm ls`, `--version`, and a rehearsal on a copy of the state with
  migration, Doctor and a start. Ours the phases `staged` and `verified`, which also read every file, none of it before
  a node's turn. The trees are shared: the first node installs for all, on either side;
- the drain: the gateway is asked by its own command. Ours the phase `drained`, which tells load balancers too;
- the outage: stop, a copy of the state, migration, start, until the gateway is ready. Ours the phases `snapshotted`,
  `migrated` and `restarted`;
- the proof: Doctor once more, and three looks, LOOK_S apart. Ours the phase `proven`.
Of Ansible every command's own time is taken out, of ours these phases alone. So ours has in it: the flag and its claim
with all checks, evidence and bookmark, the switch, each peer's look and its signature, the last known good, the
journal between phases, the report, and the gates before the next node. No peer looks at Ansible's hosts. At 100
nodes nothing is done, so nothing of ours is taken out.

Ansible is tuned: a local connection, pipelining, no facts, a named interpreter. Of its 100 hosts SAMPLE are played;
`serial: 1` makes each of them as long as any other.
"""

from __future__ import annotations

from scripts.benchmarks.frame import Options, Sample
from scripts.benchmarks.moving import Moved, our_fleet
from scripts.benchmarks.playing import playing
from scripts.benchmarks.serial import ansible, play_nothing
from scripts.debian import need
from shared.terminal import say

SIZES = (3, 10, 100)
SIMULATED = 100
"""From so many nodes on they are played."""
OLD = "2026.7.35"
FIRST = 6
"""The patch level of the first version that they move to: one more each round."""
SAMPLE = 5


def versions(rounds: int) -> list[str]:
    return [f"2026.9.{FIRST + number}" for number in range(rounds)]


async def run(options: Options) -> list[Sample]:
    need("ansible-playbook", "ansible-core")
    samples: list[Sample] = []
    for size in [options.nodes] if options.nodes else SIZES:
        sides = simulated if size >= SIMULATED else real
        samples += await sides(size, versions(options.rounds))
    return samples


async def real(size: int, wanted: list[str]) -> list[Sample]:
    """All rounds of ours, then all of the rival's: neither shares the host with the other's idle daemons."""
    say(f"{size} nodes: a fleet is made, which runs {OLD}")
    async with our_fleet(size, OLD) as fleet:
        ours = [_told("ours", await fleet.move(version)) for version in wanted]
    say(f"{size} nodes: hosts for Ansible are made")
    async with ansible(size, [OLD, *wanted]) as hosts:
        theirs = [_told("ansible", await hosts.move(version)) for version in wanted]
    return paired(size, ours, theirs)


async def simulated(size: int, wanted: list[str], sample: int = SAMPLE) -> list[Sample]:
    say(f"{size} simulated nodes join")
    async with playing(size, wanted) as stand:
        ours = [_told("ours", await stand.move(version)) for version in wanted]
    theirs = [_told("ansible", await play_nothing(size, sample)) for _ in wanted]
    return paired(size, ours, theirs)


def _told(side: str, moved: Moved) -> Moved:
    say(f"  {side}: {moved.overhead_s:.2f} s beyond the work ({moved.total_s:.2f} s in all)")
    return moved


def paired(size: int, ours: list[Moved], theirs: list[Moved]) -> list[Sample]:
    """A sample a round."""
    return [
        Sample(
            f"overhead_n{size}_vs_ansible",
            mine.overhead_s,
            rival.overhead_s,
            "s",
            {"ours": mine.document(), "ansible": rival.document()},
        )
        for mine, rival in zip(ours, theirs, strict=True)
    ]
