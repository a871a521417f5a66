"""Milliseconds from the decision for an alarm until the last peer has it, beside serf, in turn on the same addresses.

- `p50_nN_vs_serf`, `p99_nN_vs_serf`: over many alarms with 3, 10 and 30 nodes, each a process. Every node takes its
  turn as the origin.
- `p50_n10_lossL_vs_serf`, `p99_n10_lossL_vs_serf`: each of ten nodes loses L % of all packets that come to it; left
  out, and said so, where network namespaces cannot be made.
- `cpu_n10_per_message`: milliseconds of processor time for each message and node that it reaches, ten messages a
  second, less what the same processes use while nothing happens. Half of ours are clears.

Ours begins before the alarm is signed, and ends when the last peer has verified and stored it, has frozen, and its
signed ack is verified at the origin; the alarm is cleared before the next. serf begins when its RPC is asked over a
kept connection, without coalescing and without a payload, and ends when the last agent logs that it came: nothing is
signed, stored or acked. serf has its own settings for a LAN.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from socket import socket

from scripts.benchmarks.detect import inside, loopback
from scripts.benchmarks.frame import Options, Sample
from scripts.benchmarks.spreading import Side, Start, ours, serf
from scripts.debian import need
from scripts.lab.network import Network, can_make_networks
from shared.terminal import say

SIZES = (3, 10, 30)
MIDDLE = 10
LATE = 99
LOSSES = (1, 5, 25)
"""Percent."""
PAUSE_S = 0.25
"""At most, and at random, before each alarm: serf gossips five times a second, and must not keep step with us."""
CPU_S = 10.0
CPU_EVERY_S = 0.1


def percentile(values: list[float], percent: float) -> float:
    """The smallest of them that so many percent do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


async def measure(side: Side, names: list[str], alarms: int) -> list[float]:
    """Milliseconds, one for each alarm."""
    took = []
    for number, origin in zip(range(alarms), cycle(names), strict=False):
        await asyncio.sleep(random.uniform(0, PAUSE_S))  # noqa: S311 - no secret
        took.append(1000 * await side.spread(origin, f"alarm-{number}"))
    return took


async def measure_cpu(side: Side, names: list[str]) -> float:
    """Milliseconds for each message and node."""
    before, began = side.cpu_s(), time.monotonic()
    await asyncio.sleep(CPU_S)
    idle = (side.cpu_s() - before) / (time.monotonic() - began)
    before, began = side.cpu_s(), time.monotonic()
    messages = int(CPU_S / CPU_EVERY_S)
    for number in range(messages):
        await side.tell(names[number // 2 % len(names)], f"word-{number}")
        await asyncio.sleep(max(0.0, began + (number + 1) * CPU_EVERY_S - time.monotonic()))
    used = side.cpu_s() - before - idle * (time.monotonic() - began)
    return 1000 * used / messages / len(names)


@asynccontextmanager
async def _standing(start: Start, size: int, loss: int) -> AsyncIterator[tuple[Side, list[str]]]:
    """One side, losing packets from the moment that it is up."""
    names = [f"n{number}" for number in range(size)]
    if not can_make_networks():
        async with start(place := loopback(size), lambda _: socket()) as side:
            yield side, place.names
        return
    async with Network(names) as network, start(inside(network, names), network.socket) as side:
        for name in names if loss else ():
            await network.lose(name, loss / 100)
        yield side, names


async def compare(size: int, loss: int, alarms: int) -> list[Sample]:
    """Both sides in turn."""
    times, cpu = [], []
    for start in (ours, serf):
        async with _standing(start, size, loss) as (side, names):
            times.append(await measure(side, names, alarms))
            if size == MIDDLE and not loss:
                cpu.append(await measure_cpu(side, names))
    samples = _samples(f"n{size}_loss{loss}" if loss else f"n{size}", times[0], times[1])
    if cpu:
        samples.append(Sample("cpu_n10_per_message", cpu[0], cpu[1], "ms"))
    for each in samples:
        say(f"  {each.figure}: {each.ours:.1f} ms, serf {each.rival:.1f} ms")
    return samples


def _samples(case: str, ours_ms: list[float], serf_ms: list[float]) -> list[Sample]:
    """All times stand with the ninety-ninth percentile."""
    detail = {
        "ours": [round(each, 1) for each in ours_ms],
        "serf": [round(each) for each in serf_ms],
    }
    middle, late = (
        Sample(
            f"p{percent}_{case}_vs_serf",
            percentile(ours_ms, percent),
            percentile(serf_ms, percent),
            "ms",
            detail if percent == LATE else {},
        )
        for percent in (50, LATE)
    )
    return [middle, late]


async def run(options: Options) -> list[Sample]:
    await asyncio.to_thread(need, "serf", "serf")
    cases = [(size, 0) for size in SIZES]
    if can_make_networks():
        cases += [(MIDDLE, loss) for loss in LOSSES]
    else:
        say(
            "no network namespaces can be made here (not root on Linux): all on loopback, *_loss* are left out"
        )
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}")
        for size, loss in cases:
            samples += await compare(size, loss, options.alarms)
    return samples
