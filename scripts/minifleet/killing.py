"""One node that is killed at every named place of an upgrade and of a rollback, and must come through by itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.openclaw.tree import core_version, read_seal, verify_tree
from scripts.minifleet.fleet import REAL, STANDIN, MiniFleet
from scripts.minifleet.supervisor import Supervisor
from scripts.minifleet.workspace import Workspace
from shared.errors import RollcallError
from shared.failpoint import ARMED, REACHED, VARIABLE
from shared.report import NodeReport
from shared.roster import Role

OLD, NEW = "2026.7.35", "2026.9.6"
PATIENCE_S = 120.0
REAL_PATIENCE_S = 600.0
SETTLE_S = 60.0
"""Until readiness is green again after the node says that it has ended."""
STAGING = ("journalled.enter.staged#1", "journal.pass.staged#1")
"""Between these two a tree is built, if it is not there already."""


class BrokenError(RollcallError):
    """A promise that did not hold."""

    code = "broken"


@dataclass
class Points:
    """Names in the order in which they were first reached."""

    up: list[str]
    back: list[str]

    @property
    def staging(self) -> set[str]:
        first, last = (self.up.index(name) for name in STAGING)
        return set(self.up[first:last])


@dataclass
class Tally:
    """What became of the kills."""

    killed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)


class Rig:
    """A coordinator and one agent, real processes. `open` installs the old release."""

    def __init__(self, workspace: Workspace, *, real: bool) -> None:
        self.real = real
        self.fleet = MiniFleet(
            workspace,
            REAL if real else STANDIN,
            standin=not real,
            mdns=False,
            roles=(Role.CANARY,),
            supervisor=Supervisor(patience=1_000_000),
        )
        self.node = self.fleet.nodes[0]
        self.node.extra = 'drain_policy = "force"\n'
        self._folder = workspace.root / "failpoints"
        self._folder.mkdir()
        self.fleet.agent_env[VARIABLE] = str(self._folder)
        self._patience = REAL_PATIENCE_S if real else PATIENCE_S
        self.tally = Tally()

    async def open(self) -> None:
        await self.fleet.open()
        await self.fleet.install(OLD)
        self.new = await self.fleet.freeze(NEW)

    async def close(self) -> None:
        await self.fleet.close()

    async def discover(self) -> Points:
        """One upgrade and one rollback in peace."""
        await self.up([])
        up = self._names()
        await self.back([])
        return Points(up, self._names())

    async def up(self, kills: list[str], *, restage: bool = True) -> str:
        """An upgrade, killed at each of these; the phase it ended in. Raises BrokenError."""
        if restage:
            await asyncio.to_thread(self._unstage)
        self._reached.write_text("")
        self._arm(kills)
        rollout = await self.fleet.set_target(self.new, strategy="immediate", soak_s=0)
        end = await self._until(lambda report: _ended(report, rollout))
        return await self._judge(kills, end)

    async def back(self, kills: list[str]) -> str:
        """The operator's rollback of the last upgrade, killed at each of these."""
        self._reached.write_text("")
        self._arm(kills)
        said = "it went well"
        try:
            await self.fleet.agent(self.node, "rollback", "--reason", "a trial", timeout_s=900)
        except RollcallError as error:
            if not kills:
                raise
            said = str(error)
        end = await self._until(_went_back)
        if end == "done" and kills:
            raise BrokenError(
                f"killed at {kills}: the rollback was forgotten; the command said: {said}"
            )
        return await self._judge(kills, end)

    async def reset(self) -> None:
        """On the old release again, with no red and nothing blocked."""
        report = await self._report()
        if report.upgrade is not None and report.upgrade.outcome == "done":
            await self.back([])
            report = await self._report()
        for red in report.open_reds:
            key = red.rsplit("[", 1)[1].rstrip("]")
            await self.fleet.rollcall_agent(self.node, "clear", key, "--reason", "a trial")
        await self.fleet.rollcall_agent(self.node, "blocklist", "clear", "all")

    @property
    def _reached(self) -> Path:
        return self._folder / REACHED

    def _names(self) -> list[str]:
        """`name#2` is the second time."""
        seen: dict[str, int] = {}
        found = []
        for name in self._reached.read_text().split():
            seen[name] = seen.get(name, 0) + 1
            found.append(f"{name}#{seen[name]}")
        return found

    def _arm(self, kills: list[str]) -> None:
        (self._folder / ARMED).write_text("\n".join(kills))

    def _unstage(self) -> None:
        shutil.rmtree(self.fleet.root / "store" / self.new, ignore_errors=True)

    async def _report(self) -> NodeReport:
        """From the agent itself; waits while it is down."""
        ends = time.monotonic() + self._patience
        while True:
            try:
                return await self.fleet.status(self.node)
            except RollcallError:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(0.1)

    async def _until(self, ended: Callable[[NodeReport], str | None]) -> str:
        until = time.monotonic() + self._patience
        while True:
            report = await self._report()
            if (end := ended(report)) is not None:
                return end
            if time.monotonic() > until:
                raise BrokenError(f"no end in sight: {_short(report)}")
            await asyncio.sleep(0.2)

    async def _judge(self, kills: list[str], end: str) -> str:
        left = (self._folder / ARMED).read_text().split()
        self.tally.killed += [name for name in kills if name not in left]
        self.tally.missed += [name for name in kills if name in left]
        self.tally.ends[end] = self.tally.ends.get(end, 0) + 1
        self._arm([])
        ends = time.monotonic() + SETTLE_S
        while wrong := await self._wrong():
            if time.monotonic() > ends:
                raise BrokenError(f"killed at {kills}, ended {end}: {wrong}")
            await asyncio.sleep(0.2)
        return end

    async def _wrong(self) -> str | None:
        """What does not hold, when the node says that it has ended: exactly one runnable release, and the
        gateway that serves it, taking traffic, proven green."""
        report = await self._report()
        current = self.node.home / "current"
        if (
            not current.is_symlink()
            or await asyncio.to_thread(read_seal, current.resolve()) is None
        ):
            return "current does not lead to a complete tree"
        on_disk = await asyncio.to_thread(core_version, current.resolve())
        if report.version_running != on_disk or on_disk not in (OLD, NEW):
            return f"{report.version_running} runs, {on_disk} is on disk"
        if report.readiness.status != "green":
            return f"readiness is {report.readiness.status}: {report.readiness.reason}"
        if json.loads((self.node.home / "traffic.json").read_text())["percent"] != 100:
            return "the node takes no traffic"
        if (found := await asyncio.to_thread(self._gateways)) != 1:
            return f"{found} gateways run"
        await asyncio.to_thread(self._verify, current.resolve())
        return await asyncio.to_thread(self._leftover)

    def _verify(self, tree: Path) -> None:
        lock = tree / "openclaw.lock"
        verify_tree(tree, tree.name, hashlib.sha256(lock.read_bytes()).hexdigest())

    def _gateways(self) -> int:
        """Processes that listen on the gateway's port."""
        listening = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (self.node.gateway_port,)
        }
        return len(listening)

    def _leftover(self) -> str | None:
        home = self.node.home
        patterns = {
            home: (".*.tmp",),
            home / "bookmarks": ("*/*.partial-*", "*/*.warm"),
            home / "scratch": ("rollcall-home-*",),
            self.node.gateway_home: ("*.restored",),
        }
        found = [
            str(path)
            for folder, globs in patterns.items()
            for each in globs
            for path in folder.glob(each)
        ]
        return f"left behind: {found[0]}" if found else None


def _ended(report: NodeReport, rollout: str) -> str | None:
    upgrade = report.upgrade
    ours = upgrade is not None and upgrade.order.startswith(rollout)
    return upgrade.outcome if upgrade is not None and ours else None


def _went_back(report: NodeReport) -> str | None:
    return report.upgrade.outcome if report.upgrade is not None else None


def _short(report: NodeReport) -> dict[str, Any]:
    upgrade = report.upgrade
    return {
        "phase": upgrade and upgrade.phase,
        "reason": upgrade and upgrade.reason,
        "waiting": report.waiting,
        "readiness": report.readiness.reason,
    }
