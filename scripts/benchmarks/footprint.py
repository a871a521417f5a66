"""What an idle agent costs its host, beside others' agents and beside the least that it could be.

In the same minutes: three agents of a fleet, each with a gateway that has nothing to do and all probes at
their usual periods; three `serf agent`s that are joined; one node exporter that nobody asks; and the floor,
a process that imports what an agent is made of. CPU is that of a process, of its children that live and of
those that have ended; the gateway is not counted. Memory is PSS, the median over the time. Agents run from
bytecode, as installed ones do: what compiles its own source keeps some MiB of that.

| figure | ours | rival |
|---|---|---|
| cpu_vs_serf | mean of the agents, % of a core | mean of the serf agents |
| memory_vs_floor | mean of the agents, MiB | the floor |
| memory_vs_serf, memory_vs_node_exporter | the same | theirs |
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from compileall import compile_dir
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.readiness.footprint import pss_of
from scripts.benchmarks.frame import Bench, Options, Sample, repeat
from scripts.debian import need
from scripts.minifleet.fleet import STANDIN, MiniFleet, Node
from scripts.minifleet.ports import free_port
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.terminal import say

FIGURES = ("cpu_vs_serf", "memory_vs_floor", "memory_vs_serf", "memory_vs_node_exporter")
VERSION = "2026.7.35"
FLOOR = Path(__file__).with_name("floor.py")
ROOT = Path(__file__).resolve().parents[2]
EXPORTER = "prometheus-node-exporter"
SETTLE_S = 30.0
LOOKS = 5
MIB = 1 << 20


async def run(options: Options) -> list[Sample]:
    async def one_round() -> list[Sample]:
        return await run_round(options.seconds)

    bench: Bench = repeat(one_round)
    return await bench(options)


async def run_round(seconds: float) -> list[Sample]:
    need("serf", "serf")
    need(EXPORTER, EXPORTER)
    fleet = IdleFleet(Workspace(), STANDIN, standin=True, mdns=False)
    fleet.agent_env["PYTHONDONTWRITEBYTECODE"] = ""
    for package in ("agent", "shared"):
        await asyncio.to_thread(compile_dir, ROOT / package, quiet=1)
    with ExitStack() as rivals:
        try:
            await fleet.open()
            release = await fleet.freeze(VERSION)
            await fleet.until_found()
            await fleet.until_ended(await fleet.set_target(release, strategy="immediate", soak_s=0))
            parties = [
                *(agent_of(fleet, node) for node in fleet.nodes),
                *(_start(rivals, fleet, name, argv) for name, argv in rival_argvs().items()),
            ]
            say(f"  settling for {SETTLE_S:.0f} s, then measuring for {seconds:.0f} s")
            await asyncio.sleep(SETTLE_S)
            await measure(parties, seconds)
        finally:
            await fleet.close()
    return samples_of(parties)


class IdleFleet(MiniFleet):
    """With the periods that agent.toml has when it says none: a demo's are short."""

    def agent_toml(self, node: Node) -> str:
        text = super().agent_toml(node)
        text = re.sub(r"(?ms)^\[probes\]\n.*?(?=^\[)", "", text)
        return re.sub(r"(?m)^sync_every = .*\n", "", text)


@dataclass
class Party:
    """One process and what comes below it, but for the gateway. `cpu_s` and `pss` grow by `measure`."""

    name: str
    process: psutil.Process
    gateway: Callable[[], int | None] = lambda: None
    cpu_s: float = 0.0
    seconds: float = 0.0
    pss: list[int] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    uss: int = 0
    threads: int = 0

    def family(self) -> list[psutil.Process]:
        gateway = self.gateway()
        below = [each for each in self.process.children() if each.pid != gateway]
        return [self.process, *below, *(deep for each in below for deep in _below(each))]

    def spent(self) -> float:
        """CPU seconds so far. Those of a child that has ended are its parent's."""
        total = 0.0
        for each in self.family():
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def look(self) -> None:
        pids = [each.pid for each in self.family()]
        self.pss.append(sum(pss_of(pid) or 0 for pid in pids))
        self.rss.append(self.process.memory_info().rss)

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "cpu_percent": round(self.cpu_percent, 3),
            "pss_mib": round(self.pss_mib, 1),
            "rss_mib": round(statistics.median(self.rss) / MIB, 1),
            "uss_mib": round(self.uss / MIB, 1),
            "threads": self.threads,
        }

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.seconds

    @property
    def pss_mib(self) -> float:
        return statistics.median(self.pss) / MIB


async def measure(parties: list[Party], seconds: float) -> None:
    """Raises RollcallError when a process has ended or a gateway was replaced: then there is no figure."""
    loop = asyncio.get_running_loop()
    gateways = [party.gateway() for party in parties]
    began, before = loop.time(), [party.spent() for party in parties]
    for _ in range(LOOKS):
        await asyncio.sleep(seconds / LOOKS)
        for party in parties:
            party.look()
    for party, start, gateway in zip(parties, before, gateways, strict=True):
        gone = party.process.status() == psutil.STATUS_ZOMBIE
        if gone or party.gateway() != gateway:
            raise RollcallError(f"{party.name} or its gateway did not stay")
        party.cpu_s, party.seconds = party.spent() - start, loop.time() - began
        party.uss = party.process.memory_full_info().uss
        party.threads = party.process.num_threads()


def agent_of(fleet: MiniFleet, node: Node) -> Party:
    pid = fleet.supervisor.pid(node.name)
    if pid is None:
        raise RollcallError(f"the agent of {node.name} does not run")
    record = node.home / "service" / "gateway.json"

    def gateway() -> int | None:
        return int(json.loads(record.read_text())["pid"])

    return Party(f"agent-{node.name}", psutil.Process(pid), gateway)


def rival_argvs() -> dict[str, list[str]]:
    """On ports of their own, on loopback."""
    ports = list[int]()
    while len(ports) < 8:
        ports += {free_port()} - {*ports}
    argvs = {}
    for number, port in enumerate(ports[:3]):
        argv = ["serf", "agent", f"-node=n{number}", f"-bind=127.0.0.1:{port}"]
        argv += [f"-rpc-addr=127.0.0.1:{ports[3 + number]}", "-log-level=err"]
        joins = [f"-retry-join=127.0.0.1:{ports[0]}", "-retry-interval=1s"]
        argvs[f"serf-{number}"] = argv + joins * (number > 0)
    argvs["node_exporter"] = [EXPORTER, f"--web.listen-address=127.0.0.1:{ports[6]}"]
    argvs["floor"] = [sys.executable, str(FLOOR), str(ports[7])]
    return argvs


def _start(stack: ExitStack, fleet: MiniFleet, name: str, argv: list[str]) -> Party:
    log = stack.enter_context((fleet.root / f"{name}.out").open("wb"))
    env = fleet.workspace.environment()
    env.pop("PYTHONPATH", None)
    child = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=fleet.root
    )

    def end() -> None:
        child.terminate()
        child.wait(timeout=10)

    stack.callback(end)
    return Party(name, psutil.Process(child.pid))


def samples_of(parties: list[Party]) -> list[Sample]:
    detail = {"processes": [party.document() for party in parties]}

    def mean(prefix: str, what: Callable[[Party], float]) -> float:
        return statistics.mean(what(each) for each in parties if each.name.startswith(prefix))

    def cpu(party: Party) -> float:
        return party.cpu_percent

    def memory(party: Party) -> float:
        return party.pss_mib

    ours = mean("agent-", memory)
    return [
        Sample("cpu_vs_serf", mean("agent-", cpu), mean("serf-", cpu), "% of a core", detail),
        Sample("memory_vs_floor", ours, mean("floor", memory), "MiB"),
        Sample("memory_vs_serf", ours, mean("serf-", memory), "MiB"),
        Sample("memory_vs_node_exporter", ours, mean("node_exporter", memory), "MiB"),
    ]


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
