"""Four ways to move one gateway from one release to the next, or back, each in its own words.

All use one HOME, one port and one template of state, one after the other: OpenClaw writes absolute
paths into its databases, so a state is comparable with itself only where it was made.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.openclaw.cli import OpenClaw, first_object
from scripts.benchmarks.outages import Silence
from scripts.benchmarks.plain import PlainGateway, end_gateways, until_settled, watching
from scripts.benchmarks.weight import add_sessions
from scripts.minifleet.fleet import MiniFleet
from shared.command import Output, run_command
from shared.errors import RollcallError
from shared.rollout import RolloutState

LIMIT_S = 1800.0
FIX = ("doctor", "--fix", "--non-interactive")
FIX_RUNS = 2
"""As docs/decisions/0004 has it; the second costs nothing where the first ends well."""


@dataclass(frozen=True)
class Stand:
    """What every side stands on: one node of a fleet, and the state that each measurement begins with."""

    fleet: MiniFleet
    template: Path

    @property
    def home(self) -> Path:
        return self.fleet.nodes[0].gateway_home

    @property
    def port(self) -> int:
        return self.fleet.nodes[0].gateway_port

    @property
    def state(self) -> Path:
        return self.home / ".openclaw"

    def tree(self, release: str) -> Path:
        return self.fleet.root / "store" / release

    def openclaw(self, release: str) -> OpenClaw:
        return OpenClaw(self.fleet.tools, self.tree(release), self.home)

    async def make_template(self, before: str, *, fix: bool) -> int:
        """The state that the old release makes when it runs for the first time, then with some weight in
        it, and run once more so that it has seen that. A release that keeps sessions in SQLite does not
        start on files: with `fix` its Doctor takes them in. Returns the bytes of transcripts."""
        fleet = self.fleet
        rollout = await fleet.set_target(before, strategy="immediate", soak_s=0)
        view = await fleet.until_ended(rollout)
        if view.rollout is None or view.rollout.state is not RolloutState.SUCCEEDED:
            raise RollcallError(f"release {before[:12]} could not be installed")
        await until_settled(self.port)
        await fleet.supervisor.stop(fleet.nodes[0].name)
        await end_gateways(self.home)
        written = await asyncio.to_thread(add_sessions, self.state)
        if fix:
            await self.fix(before)
        gateway = await self.start_tree(before)
        await until_settled(self.port)
        await gateway.stop()
        await copy(self.state, self.template)
        return written

    async def clear(self) -> None:
        """No agent, no gateway, and the home empty but for the template's state."""
        name = self.fleet.nodes[0].name
        if name in self.fleet.supervisor.pids():
            await self.fleet.supervisor.stop(name)
        await end_gateways(self.home)
        await asyncio.to_thread(shutil.rmtree, self.home)
        self.home.mkdir(mode=0o700)
        await copy(self.template, self.state)

    async def start(self, argv: list[str], env: dict[str, str]) -> PlainGateway:
        words = [*argv, "gateway", "--port", str(self.port)]
        log = self.fleet.root / "plain-gateway.log"
        gateway = await PlainGateway.start(words, env, self.home, self.port, log)
        await gateway.until_ready()
        return gateway

    async def fix(self, release: str) -> int:
        """OpenClaw's own migration of the state, with the binary of this release; how often it ran."""
        for attempt in range(1, FIX_RUNS + 1):
            done = await self.openclaw(release).run(*FIX, timeout_s=LIMIT_S)
            if done.code == 0:
                return attempt
        raise RollcallError(f"openclaw doctor --fix failed: {done.last_line()}")

    async def start_tree(self, release: str) -> PlainGateway:
        openclaw = self.openclaw(release)
        return await self.start(openclaw.argv(), openclaw.environment())


class Ours:
    """The agent, told through the coordinator by `rollcall target set`, and `rollcall-agent rollback`."""

    def __init__(self, stand: Stand) -> None:
        self._stand, self._fleet = stand, stand.fleet
        self._node = stand.fleet.nodes[0]
        self._spent: dict[str, float] = {}

    async def begin(self) -> None:
        """The agent up on the template's state; it starts the old release that it knows as current."""
        await self._stand.clear()
        self._fleet.start_agent(self._node)
        await until_settled(self._stand.port)
        await self._fleet.until_found()

    async def upgrade(self, release: str) -> tuple[Silence, dict[str, Any]]:
        async with watching(self._fleet.workspace, self._stand.port, "ours-upgrade") as watch:
            rollout = await self._fleet.set_target(release, strategy="immediate", soak_s=0)
            view = await self._fleet.until_ended(rollout)
        report = await self._fleet.agent(self._node, "status")
        if view.rollout is None or view.rollout.state is not RolloutState.SUCCEEDED:
            upgrade = report["upgrade"] or {}
            raise RollcallError(f"our upgrade did not succeed: {upgrade.get('reason')}")
        return watch.result(), self._reported(report)

    async def roll_back(self) -> tuple[Silence, dict[str, Any]]:
        async with watching(self._fleet.workspace, self._stand.port, "ours-rollback") as watch:
            report = await self._fleet.agent(self._node, "rollback")
        return watch.result(), self._reported(report)

    async def end(self) -> None:
        """With its own reds cleared: they would keep the next round from beginning."""
        reds = await self._fleet.agent(self._node, "reds")
        for red in reds["open"]:
            key = red.rpartition("[")[2].rstrip("]")
            words = ("clear", key, "--reason", "the benchmark goes on")
            await self._fleet.rollcall_agent(self._node, *words)
        await self._stand.clear()

    def _reported(self, report: dict[str, Any]) -> dict[str, Any]:
        """The agent's own account of what came since the last one: seconds by phase."""
        upgrade = report["upgrade"]
        spent = {
            phase: round(seconds, 3)
            for phase, seconds in upgrade["spent_s"].items()
            if self._spent.get(phase) != seconds
        }
        self._spent = upgrade["spent_s"]
        return {"spent_s": spent, "outage_s": upgrade["outage_s"]}


class Floor:
    """What nobody can do without: stop, migrate where the schema changes, start. And back: stop, put the
    cold copy in place with `cp -a`, start. The trees are ours, and have been run before."""

    def __init__(self, stand: Stand, *, migrates: bool) -> None:
        self._stand, self._migrates = stand, migrates
        self._gateway: PlainGateway | None = None

    async def upgrade(self, before: str, after: str) -> tuple[Silence, dict[str, Any]]:
        stand = self._stand
        await stand.clear()
        old = await stand.start_tree(before)
        spent: dict[str, Any] = {}
        async with watching(stand.fleet.workspace, stand.port, "floor-upgrade") as watch:
            async with timed(spent, "stop"):
                await old.stop()
            if self._migrates:
                async with timed(spent, "doctor_fix"):
                    spent["fix_runs"] = await stand.fix(after)
            async with timed(spent, "start"):
                self._gateway = await stand.start_tree(after)
        return watch.result(), {"spent_s": spent}

    async def roll_back(self, before: str) -> tuple[Silence, dict[str, Any]]:
        stand, spent = self._stand, dict[str, Any]()
        if self._gateway is None:
            raise RollcallError("the floor's rollback comes after its upgrade")
        async with watching(stand.fleet.workspace, stand.port, "floor-rollback") as watch:
            async with timed(spent, "stop"):
                await self._gateway.stop()
            async with timed(spent, "restore"):
                stand.state.rename(stand.state.with_name(".openclaw.failed"))
                await copy(stand.template, stand.state)
            async with timed(spent, "start"):
                self._gateway = await stand.start_tree(before)
        return watch.result(), {"spent_s": spent}

    async def end(self) -> None:
        if self._gateway is not None:
            await self._gateway.stop()
        await self._stand.clear()


class OpenClawUpdate:
    """`openclaw update --tag TO --json --yes` of an `npm install -g` of its own.

    Without a service manager it leaves the running gateway alone, old code on a tree that is being
    replaced and a state that is being migrated. With one, both 2026.7.35 and 2026.8.2 stop the gateway
    before they stage anything and start it at the end. So here: SIGTERM, the update, the start, as an
    operator without a service manager does it; the gateway is away from the first to the end of the last.
    """

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._prefix = stand.fleet.root / "update"
        self._bin = self._prefix / "bin"
        self._node = self._prefix / "node" / "bin" / "node"

    async def upgrade(self, before: str, after: str) -> tuple[Silence, dict[str, Any]]:
        """Versions, not releases."""
        stand = self._stand
        await stand.clear()
        await self._install(before)
        openclaw = [str(self._node), str(self._bin / "openclaw")]
        old = await stand.start(openclaw, self._environment())
        spent: dict[str, Any] = {}
        async with watching(stand.fleet.workspace, stand.port, "openclaw-update") as watch:
            async with timed(spent, "stop"):
                await old.stop()
            async with timed(spent, "update"):
                done = await self._run(*openclaw, "update", "--tag", after, "--json", "--yes")
            async with timed(spent, "start"):
                new = await stand.start(openclaw, self._environment())
        await new.stop()
        version = await self._run(*openclaw, "--version")
        if after.encode() not in version.stdout:
            raise RollcallError(f"openclaw update left {version.last_line()}: {done.last_line()}")
        return watch.result(), {"spent_s": spent, "code": done.code, "steps_s": _steps(done)}

    async def _install(self, version: str) -> None:
        """With a copy of Node that has an npm beside it: the update runs the one beside its own Node,
        wherever links may lead, and the wheel's does not run."""
        await asyncio.to_thread(shutil.rmtree, self._prefix, True)
        tools, npm = self._stand.fleet.tools, self._node.with_name("npm")
        self._node.parent.mkdir(parents=True)
        await asyncio.to_thread(shutil.copy2, tools.node, self._node)
        npm.write_text(f'#!/bin/sh\nexec "{self._node}" "{tools.npm_cli}" "$@"\n')
        npm.chmod(0o755)
        words = ("install", "-g", "--prefix", str(self._prefix), f"openclaw@{version}")
        done = await self._run(str(npm), *words)
        if done.code != 0:
            raise RollcallError(f"npm install -g failed: {done.last_line()}")

    def _environment(self) -> dict[str, str]:
        """An operator's: the prefix is npm's global one, which 2026.8.2 wants before it believes that npm
        is the owner; install scripts run, and automatic updates do not."""
        env = self._stand.fleet.tools.environment(self._stand.home)
        path = f"{self._node.parent}:{self._bin}:{env['PATH']}"
        own = {"npm_config_ignore_scripts": "false", "npm_config_prefix": str(self._prefix)}
        return {**env, **own, "PATH": path, "OPENCLAW_NO_AUTO_UPDATE": "1"}

    async def _run(self, *argv: str) -> Output:
        env, home = self._environment(), self._stand.home
        return await run_command(argv, env=env, timeout_s=LIMIT_S, cwd=home)


class timed:  # noqa: N801 - reads as a word of the block that it times
    """Writes the seconds of its block into `into[name]`."""

    def __init__(self, into: dict[str, Any], name: str) -> None:
        self._into, self._name = into, name

    async def __aenter__(self) -> None:
        self._began = asyncio.get_running_loop().time()

    async def __aexit__(self, *_: object) -> None:
        self._into[self._name] = round(asyncio.get_running_loop().time() - self._began, 3)


async def copy(source: Path, target: Path) -> None:
    done = await run_command(["/bin/cp", "-a", str(source), str(target)], env={}, timeout_s=LIMIT_S)
    if done.code != 0:
        raise RollcallError(f"cp -a failed: {done.last_line()}")


def _steps(done: Output) -> dict[str, float]:
    """What the update says of its own steps."""
    value = first_object(done.stdout) or {}
    steps = value.get("steps")
    if not isinstance(steps, list):
        return {}
    return {str(step.get("name")): round(step.get("durationMs", 0) / 1000, 3) for step in steps}
