"""The agent's own upgrade: agent first, then OpenClaw, while the gateway serves throughout.

A release names the agent that goes with it. A node that runs another one builds that beside its own,
moves `active`, and ends, to be started again; the new one reports healthy and takes the order. A version
from which the launcher came back is not tried again: a red, the blocklist, and the order's end say so.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from agent.builder import BadAgentError
from agent.environments import Built, Environments, Failed, Move
from shared.durable import private_directory, write_durable
from shared.errors import ConflictError, RollcallError, UnavailableError
from shared.messages import RedKind
from shared.release import AgentBuild, Release, other_agent
from shared.report import Target
from shared.wire import short

log = structlog.get_logger()


@dataclass(frozen=True)
class Facts:
    """What the decision rests on. `settled` is whether the running agent has reported healthy; `built` and
    `failed` are of the version that the release names. `frozen` names a red of a peer: one may have come
    since the order was looked at, while the metadata was fetched."""

    running: str
    launched: bool
    settled: bool
    active: str | None
    built: Built | None
    failed: Failed | None
    frozen: str | None = None


@dataclass(frozen=True)
class Stay:
    """The agent that runs is the right one, or none is named."""


@dataclass(frozen=True)
class Hold:
    """Not now; `reason` says what it waits for."""

    reason: str


@dataclass(frozen=True)
class Refuse:
    """This agent failed before: the release is blocked, with a red, and the order ends."""

    reason: str


@dataclass(frozen=True)
class Build:
    agent: AgentBuild


@dataclass(frozen=True)
class Go:
    version: str


Step = Stay | Hold | Refuse | Build | Go


def decide(agent: AgentBuild | None, facts: Facts) -> Step:
    """Pure. A record of a failure counts for the very wheel that failed."""
    if agent is None or agent.version == facts.running:
        return Stay()
    wanted = f"the release goes with agent {agent.version}"
    if not facts.launched:
        return Hold(
            f"{wanted}; this agent ({facts.running}) was not started by its launcher, and cannot "
            "change itself (run: rollcall-agent adopt)"
        )
    if facts.active != facts.running:
        return Hold(f"{wanted}; agent {facts.running} runs while {facts.active} is active")
    if facts.failed is not None and facts.failed.sha256 in (agent.sha256, None):
        return Refuse(f"agent {agent.version} failed here: {facts.failed.reason}")
    if not facts.settled:
        return Hold(f"{wanted}; agent {facts.running} has not reported healthy yet")
    if facts.frozen is not None:
        return Hold(f"{wanted}; this node is frozen by {facts.frozen}")
    if facts.built is not None and facts.built.sha256 == agent.sha256:
        return Go(agent.version)
    return Build(agent)


class Departure(Exception):  # noqa: N818 - the way out of a task group, not an error
    """Everything is ready for the next agent: this one ends, with exit code 0."""


class Files(Protocol):
    """Files of a release, checked against its manifest."""

    async def agent_file(self, release: Release, sha256: str) -> bytes: ...


class Builds(Protocol):
    async def build(self, version: str, sha256: str, wheel: Path, wheels: Path | None) -> None: ...


class Alarm(Protocol):
    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None: ...
    async def block(self, release: str, reason: str) -> None: ...
    async def blocked(self, release: str) -> str | None: ...
    def frozen(self) -> str | None: ...


Drop = Callable[[Target, str, str], Awaitable[None]]
"""End an order: target, the release's label, the reason."""


@dataclass(frozen=True)
class Node:
    """What the running agent is. `settled` and `serving` are asked at the moment that they matter."""

    running: str
    launched: bool
    settled: Callable[[], bool]
    serving: Callable[[], bool]


class SelfUpgrade:
    """`say` is told what goes on, for people."""

    def __init__(
        self,
        node: Node,
        environments: Environments,
        builder: Builds,
        files: Files,
        alarm: Alarm,
        say: Callable[[str], None],
    ) -> None:
        self._node, self._environments, self._builder = node, environments, builder
        self._files, self._alarm, self._say = files, alarm, say

    async def recover(self, drop: Drop) -> None:
        """At start: if this is the agent that the launcher came back to, say so to everybody, and end the
        order that had moved it. Can be called again after a crash at any point."""
        move = await asyncio.to_thread(self._environments.move)
        if not self._node.launched or move is None or move.version == self._node.running:
            return
        failed = await asyncio.to_thread(self._environments.failed, move.version)
        if failed is not None:
            await self._fail(move.target, move.label, _reason(move.version, failed), drop)
        active = await asyncio.to_thread(lambda: self._environments.active)
        if failed is not None or active == self._node.running:
            await asyncio.to_thread(self._environments.end_move)

    async def step(self, target: Target, release: Release, drop: Drop) -> bool:
        """Do what is next before this order may begin. True when nothing is.

        Raises Departure once `active` names another agent, ConflictError with what has to be waited for.
        """
        if await self._alarm.blocked(release.id) is not None:
            return True  # claiming it says why, and ends the order
        agent = other_agent(release.manifest, self._node.running)
        found = await asyncio.to_thread(self._facts, agent)
        match decide(agent, replace(found, frozen=self._alarm.frozen())):
            case Stay():
                return True
            case Hold(reason):
                raise ConflictError(reason)
            case Refuse(reason):
                await self._fail(target, release.label, reason, drop)
            case Build(build):
                await self._build(target, release, build, drop)
            case Go(version):
                await self._go(version, target, release.label)
        return False

    def _facts(self, agent: AgentBuild | None) -> Facts:
        version = "" if agent is None else agent.version
        return Facts(
            running=self._node.running,
            launched=self._node.launched,
            settled=self._node.settled(),
            active=self._environments.active,
            built=self._environments.built(version) if version else None,
            failed=self._environments.failed(version) if version else None,
        )

    async def _build(self, target: Target, release: Release, agent: AgentBuild, drop: Drop) -> None:
        """What fails for want of room or of an index ends this order and no other; a wheel that makes no
        agent is not tried again. A coordinator that is away, and an adoption that is under way, are waited for."""
        parts = self._environments.root / ".parts"
        try:
            self._say(f"fetching agent {agent.version}")
            await self._fetch(release, agent, parts)
            self._say(f"building agent {agent.version}")
            wheels = parts if agent.wheels else None
            await self._builder.build(agent.version, agent.sha256, parts / agent.file, wheels)
        except (UnavailableError, ConflictError):
            raise
        except BadAgentError as error:
            await self._fail(target, release.label, str(error), drop)
        except (RollcallError, OSError) as error:
            reason = f"agent {agent.version} could not be built: {error}"
            log.error("agent not built", version=agent.version, reason=str(error))
            await drop(target, release.label, short(reason))
        finally:
            self._say("")
            await asyncio.to_thread(shutil.rmtree, parts, ignore_errors=True)

    async def _fetch(self, release: Release, agent: AgentBuild, parts: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, parts, ignore_errors=True)
        await asyncio.to_thread(private_directory, parts)
        for file, sha256 in agent.files.items():
            raw = await self._files.agent_file(release, sha256)
            await asyncio.to_thread(write_durable, parts / file, raw)

    async def _go(self, version: str, target: Target, label: str) -> None:
        move = Move(
            version=version,
            before=self._node.running,
            target=target,
            label=label,
            served=self._node.serving(),
        )
        await asyncio.to_thread(self._environments.begin_move, move)
        log.info("agent moves", before=move.before, version=version)
        raise Departure

    async def _fail(self, target: Target, label: str, reason: str, drop: Drop) -> None:
        reason = short(f"{reason}; agent {self._node.running} goes on")
        await self._alarm.block(target.release, reason)
        await self._alarm.raise_red(RedKind.AGENT_FAILED, reason, target.release)
        await drop(target, label, reason)


def _reason(version: str, failed: Failed) -> str:
    return f"agent {version} failed here: {failed.reason}"
