"""A few nodes and a coordinator on loopback, set up with the very commands that an operator types."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.cli.parts import ask_agent
from coordinator.cli.client import Client
from scripts.minifleet.breakage import Breakage
from scripts.minifleet.packages import pack_standin
from scripts.minifleet.ports import free_port, free_ports
from scripts.minifleet.supervisor import Supervisor
from scripts.minifleet.workspace import Workspace
from shared.command import run_command
from shared.errors import CommandError, RollcallError
from shared.mergepatch import merge_patch
from shared.npm import Npm, find_tools
from shared.ports import VARIABLE as PORTS
from shared.report import NodeReport
from shared.rollout import FleetView, RolloutState
from shared.roster import Role

BIN = Path(sys.executable).parent
UP_S = 120.0
SPARE_PORTS = 8
ROLES = (Role.CANARY, Role.STABLE, Role.WITNESS)


@dataclass(frozen=True)
class Pace:
    """How long things may take: the stand-in is ready in a blink, the real one is not."""

    ready_timeout_s: float
    memory_bytes: int
    queue_every_s: float
    doctor_timeout_s: float
    prove_timeout_s: float = 90.0
    attest_timeout_s: float = 60.0
    prove_interval_s: float = 0.5
    red_after_s: float = 8.0
    mismatch_after_s: float = 90.0
    memory_growth: float = 3.0
    hurried: bool = True
    """Guards that need minutes by themselves judge within seconds, and none judges the host that this runs on."""


STANDIN = Pace(
    ready_timeout_s=8,
    memory_bytes=420 << 20,
    queue_every_s=5,
    doctor_timeout_s=20,
    prove_timeout_s=20,
)
REAL = Pace(
    ready_timeout_s=90,
    memory_bytes=2 << 30,
    queue_every_s=60,
    doctor_timeout_s=120,
    memory_growth=6,
)
"""The guards do not wait until it has warmed up: just started, 2026.9.6 takes 900 MiB, and an idle 2026.7.35 270."""


@dataclass
class Node:
    name: str
    role: Role
    home: Path
    gateway_home: Path
    gateway_port: int
    api_port: int
    peer_port: int
    spare_ports: list[int]
    """For its rehearsals."""
    agent_check_port: int | None = None
    """Set before `open`, where a load balancer is to ask."""
    extra: str = ""
    """More of the `[upgrade]` section of agent.toml."""
    store: Path | None = None
    """Of its own, where it shall not share the fleet's trees."""
    gateway_config: dict[str, Any] = field(default_factory=dict)
    """Merged into openclaw.json."""

    @property
    def log(self) -> Path:
        """Of its own: by itself OpenClaw has one log for all gateways of an account."""
        return self.gateway_home / "openclaw.log"


def _hurry(pace: Pace) -> str:
    return f"""\
memory_bytes = {pace.memory_bytes}
leak_warmup = "2s"
leak_window = "10s"
leak_horizon = "5s"
memory_growth = {pace.memory_growth}
memory_percent = 99
disk_free = "1%"
disk_latency_ms = 60000
"""


async def together(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """All of them, or the first error once the others have ended too."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def named(roles: Sequence[Role]) -> list[tuple[str, Role]]:
    """Each node is called after its role, and the second of a role `stable-2`."""
    found: list[tuple[str, Role]] = []
    for role in roles:
        before = sum(other is role for _, other in found)
        found.append((f"{role.value}-{before + 1}" if before else role.value, role))
    return found


class MiniFleet:
    """Made by `open`, ended by `close`. `say` is told what goes on, a line at a time."""

    def __init__(
        self,
        workspace: Workspace,
        pace: Pace,
        *,
        standin: bool,
        mdns: bool,
        roles: tuple[Role, ...] = ROLES,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.workspace, self.pace, self.standin, self.mdns = workspace, pace, standin, mdns
        self.root = workspace.root
        self.supervisor = supervisor or Supervisor()
        self.agent_env: dict[str, str] = {}
        """For the agents and their commands, besides what everybody gets."""
        self.coordinator_env: dict[str, str] = {}
        self.tools = replace(find_tools(), cache=Path.home() / ".npm")
        self.npm = Npm(self.tools)
        self.config = self.root / "coordinator" / "operator.toml"
        self.nodes = [self._node(name, role) for name, role in named(roles)]
        self.coordinator_port = free_port()
        self.packages = self.root / "packages"
        self.packages.mkdir()
        self._packed: dict[str, Path] = {}
        self.answering = asyncio.Event()
        """Set once the coordinator takes requests."""

    def _node(self, name: str, role: Role) -> Node:
        base = self.root / name
        gateway, api, peer, *spare = free_ports(3 + SPARE_PORTS)
        return Node(
            name=name,
            role=role,
            home=base / "agent",
            gateway_home=base / "home",
            gateway_port=gateway,
            api_port=api,
            peer_port=peer,
            spare_ports=spare,
        )

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    async def rollcall(self, *words: str, timeout_s: float = 900) -> dict[str, Any]:
        raw = await self._cli("rollcall", *words, "--json", timeout_s=timeout_s)
        return dict(json.loads(raw))

    async def agent(self, node: Node, *words: str, timeout_s: float = 900) -> dict[str, Any]:
        raw = await self.rollcall_agent(node, *words, "--json", timeout_s=timeout_s)
        return dict(json.loads(raw))

    async def status(self, node: Node) -> NodeReport:
        """What `rollcall-agent status` is told, without a process for it: asked again and again, its start would be
        most of the load. Raises RollcallError while the agent is down."""
        answer = await asyncio.to_thread(ask_agent, node.home, "GET", "/v1/status", timeout_s=20)
        return NodeReport.from_bytes(answer)

    async def rollcall_agent(self, node: Node, *words: str, timeout_s: float = 900) -> bytes:
        """A command that speaks no JSON."""
        home = str(node.home)
        return await self._cli("rollcall-agent", *words, "--home", home, timeout_s=timeout_s)

    async def _cli(self, program: str, *words: str, timeout_s: float) -> bytes:
        env = {**self.workspace.environment(), "ROLLCALL_CONFIG": str(self.config)}
        env |= self.agent_env if program == "rollcall-agent" else {}
        output = await run_command([str(BIN / program), *words], env=env, timeout_s=timeout_s)
        if output.code != 0:
            said = output.stderr.decode("utf-8", "replace").strip()
            raise CommandError(f"{program} {' '.join(words[:3])} failed ({output.code}): {said}")
        return output.stdout

    async def open(self) -> None:
        """Coordinator up, all nodes joined, agents up; nobody runs OpenClaw yet."""
        self.start_coordinator()
        await self._wait_for(self.config)
        await self._until_answering()
        await self._sign_fleet()
        self.answering.set()
        await together(*(self._join(node) for node in self.nodes))
        for node in self.nodes:
            self.start_agent(node)

    async def _sign_fleet(self) -> None:
        """Throw-away operator's keys, under a throw-away passphrase."""
        self.passphrase.write_text(secrets.token_hex(16))
        self.passphrase.chmod(0o600)
        bundle = str(self.root / "fleet.bundle")
        await self.rollcall("keys", "init", *self.desk(), "--out", bundle, "--yes")

    @property
    def passphrase(self) -> Path:
        return self.root / "passphrase"

    def desk(self) -> list[str]:
        """Options of every command that signs."""
        folder = str(self.root / "operator")
        return ["--folder", folder, "--passphrase-file", str(self.passphrase)]

    def start_coordinator(self) -> None:
        home = self.root / "coordinator"
        home.mkdir(exist_ok=True)
        argv = [
            str(BIN / "rollcall"),
            "coordinator",
            "serve",
            "--home",
            str(home),
            "--name",
            "demo",
            "--listen",
            f"127.0.0.1:{self.coordinator_port}",
        ]
        env = {**self.workspace.environment(), **self.coordinator_env}
        self.supervisor.start("coordinator", argv, env, self.root / "coordinator.out")

    def start_agent(self, node: Node) -> None:
        """Through its launcher where the node was adopted; else the program of this environment."""
        program = node.home / "launcher"
        program = program if program.exists() else BIN / "rollcall-agent"
        argv = [str(program), "run", "--home", str(node.home)]
        env = {**self.workspace.environment(), **self.agent_env}
        env[PORTS] = ",".join(map(str, node.spare_ports))
        self.supervisor.start(node.name, argv, env, self.root / f"{node.name}.out")

    async def _join(self, node: Node) -> None:
        self._write_gateway_config(node)
        answer = await Client(self.config).ask("POST", "/v1/node-tokens", b"{}")
        token = str(json.loads(answer)["token"])
        await self.agent(node, "join", token, "--name", node.name, "--role", node.role.value)
        path = node.home / "agent.toml"
        path.write_text(self.agent_toml(node))
        path.chmod(0o600)

    def _write_gateway_config(self, node: Node) -> None:
        state = node.gateway_home / ".openclaw"
        state.mkdir(parents=True, mode=0o700)
        config = {
            "gateway": {
                "mode": "local",
                "port": node.gateway_port,
                "bind": "loopback",
                "auth": {"mode": "token", "token": secrets.token_hex(16)},
            },
            "agents": {"defaults": {"heartbeat": {"every": "0m"}}},
            "update": {"checkOnStart": False},
        }
        if not self.standin:
            config["logging"] = {"file": str(node.log)}
        config = merge_patch(config, node.gateway_config)
        (state / "openclaw.json").write_text(json.dumps(config, indent=2))
        (state / "openclaw.json").chmod(0o600)

    def agent_toml(self, node: Node) -> str:
        static = [
            f"{peer.name}=127.0.0.1:{peer.peer_port}"
            for peer in self.nodes
            if peer is not node and not self.mdns
        ]
        pace = self.pace
        asked = node.agent_check_port
        agent_check = "" if asked is None else f"agent_check_port = {asked}"
        extra_ca = f'extra_ca = "{self.tools.extra_ca}"' if self.tools.extra_ca else ""
        return f"""\
[api]
port = {node.api_port}
{agent_check}

[peers]
host = "127.0.0.1"
port = {node.peer_port}
mdns = {str(self.mdns).lower()}
interfaces = ["127.0.0.1"]
static = {json.dumps(static)}
sync_every = "2s"

[gateway]
home = "{node.gateway_home}"
port = {node.gateway_port}
{'user = "root"' if os.geteuid() == 0 else ""}
ready_timeout = {pace.ready_timeout_s}
stop_timeout = 5

[openclaw]
node = "{self.tools.node}"
npm = "{self.tools.npm_cli}"
npm_cache = "{self.tools.cache}"
store = "{node.store or self.root / "store"}"
{extra_ca}

[guards]
{_hurry(pace) if pace.hurried else ""}
[probes]
gateway_every = 1
memory_every = 1
queue_every = {pace.queue_every_s}
tree_every = 5
log_files = {json.dumps([str(node.log)])}
red_after = {pace.red_after_s}
mismatch_after = {pace.mismatch_after_s}

[upgrade]
doctor_timeout = {pace.doctor_timeout_s}
attest_timeout = {pace.attest_timeout_s}
prove_interval = {pace.prove_interval_s}
prove_timeout = {pace.prove_timeout_s}
{node.extra}"""

    async def freeze(
        self,
        version: str,
        *,
        name: str | None = None,
        breakage: Breakage | None = None,
        agent: tuple[Path, Path] | None = None,
        plugins: dict[str, str] | None = None,
    ) -> str:
        """Resolve, sign and publish a release with the operator's key; `agent` is a wheel and the folder of
        its dependencies. Returns its id."""
        bad = breakage or Breakage()
        artifacts = dict(bad.artifacts)
        if self.standin:
            artifacts["openclaw"] = await self._standin(version)
        words = ["release", "create", version, *self.desk(), "--publish"]
        words += ["--node", str(self.tools.node), "--npm", str(self.tools.npm_cli)]
        words += [] if name is None else ["--as", name]
        if agent is not None:
            words += ["--agent-wheel", str(agent[0]), "--agent-wheels", str(agent[1])]
        for plugin, wanted in (plugins or {}).items():
            words += ["--plugin", f"{plugin}@{wanted}"]
        for package, path in artifacts.items():
            words += ["--artifact", f"{package}={path}"]
        if bad.overlay:
            overlay = self.packages / f"overlay-{version}.json"
            overlay.write_text(json.dumps(bad.overlay))
            words += ["--overlay", str(overlay)]
        return str((await self.rollcall(*words))["id"])

    async def _standin(self, version: str) -> Path:
        """Packed once: two releases of one version have the same bytes."""
        if version not in self._packed:
            self._packed[version] = await pack_standin(self.npm, version, self.packages)
        return self._packed[version]

    async def adopt(self, node: Node, wheel: Path, wheels: Path) -> None:
        """From its next start on the node runs this agent, by its launcher."""
        await self.agent(node, "adopt", "--wheel", str(wheel), "--wheels", str(wheels))

    async def install(self, version: str) -> str:
        """Freeze this version and put it on every node of a fleet that has none yet; the release's id.
        Raises RollcallError where a node does not take it."""
        release = await self.freeze(version)
        await self.until_found()
        first = await self.set_target(release, strategy="immediate", soak_s=0)
        rollout = (await self.until_ended(first)).rollout
        if rollout is None or rollout.state is not RolloutState.SUCCEEDED:
            raise RollcallError(f"{version} could not be installed: {rollout and rollout.reason}")
        return release

    async def set_target(self, release: str, *, strategy: str, soak_s: float) -> str:
        words = ["target", "set", release, "--strategy", strategy, "--soak", f"{soak_s}s"]
        words.append("--yes-really")
        return str((await self.rollcall(*words))["id"])

    async def watch(self, generation: int = 0) -> FleetView:
        """The fleet as the coordinator sees it, once it is newer; survives its restarts."""
        while True:
            self.supervisor.check()
            try:
                raw = await Client(self.config).ask("GET", f"/v1/watch?generation={generation}")
                return FleetView.from_bytes(raw, max_bytes=32 << 20)
            except RollcallError:
                await asyncio.sleep(0.3)

    async def until_found(self) -> FleetView:
        """Every node heard of, and every peer reached by every other."""
        ends = asyncio.get_running_loop().time() + UP_S
        generation = 0
        while True:
            view = await self.watch(generation)
            generation = view.generation
            whole = len(view.nodes) == len(self.nodes) and all(
                node.heard is not None
                and len(node.peers) >= len(self.nodes) - 1
                and all(node.peers.values())
                for node in view.nodes
            )
            if whole:
                return view
            if asyncio.get_running_loop().time() > ends:
                missing = [f"{n.name}: {n.peers}" for n in view.nodes]
                raise RollcallError(f"the nodes did not find each other: {missing}")

    async def until_ended(self, rollout: str, on_view: Any = None) -> FleetView:
        """Follow a rollout until it has ended, or needs an operator, and no node is on its way any more."""
        generation = 0
        while True:
            view = await self.watch(generation)
            generation = view.generation
            if on_view is not None:
                on_view(view)
            if view.rollout is None or view.rollout.id != rollout:
                continue
            moving = any(node.state == "moving" for node in view.rollout.nodes)
            if (
                view.rollout.state not in (RolloutState.RUNNING, RolloutState.ABORTING)
                and not moving
            ):
                return view

    async def _wait_for(self, path: Path) -> None:
        ends = asyncio.get_running_loop().time() + UP_S
        while not path.exists():
            self.supervisor.check()
            if asyncio.get_running_loop().time() > ends:
                raise RollcallError(f"the coordinator did not write {path}")
            await asyncio.sleep(0.1)

    async def _until_answering(self) -> None:
        ends = asyncio.get_running_loop().time() + UP_S
        while True:
            self.supervisor.check()
            try:
                await Client(self.config).ask("GET", "/v1/nodes")
                return
            except RollcallError:
                if asyncio.get_running_loop().time() > ends:
                    raise
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        await self.supervisor.stop_all()
        await asyncio.to_thread(self.workspace.remove)
