"""What a self-upgrade has around it: a home with versions, and a world that notes what was done."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.environments import (
    Environments,
    Move,
)
from agent.layout import Layout
from agent.self_upgrade import (
    Facts,
    Node,
    SelfUpgrade,
)
from shared.canonical import sha256_hex
from shared.errors import (
    UnavailableError,
)
from shared.messages import RedKind
from shared.release import AgentBuild, Release, parse_release
from shared.report import Target
from tests.unit.test_journal import TARGET
from tests.unit.test_release import manifest

off = asyncio.to_thread
BUILD = AgentBuild(version="0.1.1", file="rollcall-0.1.1-py3-none-any.whl", sha256="b" * 64, size=1)
FACTS = Facts("0.1.0", launched=True, settled=True, active="0.1.0", built=None, failed=None)


@dataclass
class World:
    """What a self-upgrade has around it, and what it did."""

    layout: Layout
    running: str = "0.1.0"
    launched: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    build_error: Exception | None = None
    did: list[str] = field(default_factory=list)
    reds: list[tuple[str, str]] = field(default_factory=list)
    blocks: dict[str, str] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    red: str | None = None

    def __post_init__(self) -> None:
        self.layout.make()
        self.environments = Environments(self.layout)

    def upgrade(self) -> SelfUpgrade:
        node = Node(self.running, self.launched, lambda: True, lambda: True)
        return SelfUpgrade(node, self.environments, self, self, self, self.did.append)

    async def agent_file(self, release: Release, sha256: str) -> bytes:
        if sha256 not in self.files:
            raise UnavailableError("the coordinator is away")
        return self.files[sha256]

    async def build(self, version: str, sha256: str, wheel: Path, wheels: Path | None) -> None:
        beside = await off(os.listdir, wheel.parent)
        self.did.append(f"built from {wheel.name}, {beside}")
        if self.build_error is not None:
            raise self.build_error
        await asyncio.to_thread(self.have, version, sha256)

    def have(self, version: str, sha256: str = "b" * 64) -> None:
        self.environments.folder(version).mkdir(parents=True)
        self.environments.complete(version, sha256, 1)

    def links(self) -> tuple[str | None, str | None]:
        return self.environments.active, self.environments.good

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None:
        self.reds.append((kind, reason))

    async def block(self, release: str, reason: str) -> None:
        self.blocks[release] = reason

    async def blocked(self, release: str) -> str | None:
        return self.blocks.get(release)

    def frozen(self) -> str | None:
        return self.red

    async def drop(self, target: Target, label: str, reason: str) -> None:
        self.dropped.append((target.order, reason))


def make_world(home: Path) -> World:
    made = World(Layout(home))
    made.have("0.1.0", "a" * 64)
    made.environments.report_healthy("0.1.0", 1)
    made.environments.activate("0.1.0")
    return made


def release_with(**agent: Any) -> Release:
    value = {**BUILD.model_dump(mode="json"), **agent}
    return parse_release(manifest(agent=value).canonical())


RAW = b"a wheel"
RELEASE = release_with(sha256=sha256_hex(RAW))


RELEASE_OF_B = release_with()


def moved(world: World) -> None:
    world.have("0.1.1")
    move = Move(version="0.1.1", before="0.1.0", target=TARGET, label="x", served=True)
    world.environments.begin_move(move)
