"""What an installer needs to be tried without an agent: a signed release, its files, a context."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from agent.config import AgentConfig
from agent.layout import Layout
from agent.upgrade.bookmark import Bookmark, Bookmarks
from agent.upgrade.context import Context, Deps
from agent.upgrade.installers.factory import make_installer
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record, Status
from agent.upgrade.snapshots import Snapshots
from shared.account import Account
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.npm import NodeTools, Npm
from shared.release import Release, ReleaseManifest, parse_release
from shared.report import Target
from shared.roster import Role


class Source:
    """The agent's source of signed releases, without a coordinator."""

    def __init__(self, release: Release, files: list[bytes]) -> None:
        self._release, self._files = release, {sha256_hex(body): body for body in files}

    async def authorise(self, release: str) -> Release:
        return self._release

    async def release(self, release: str) -> Release:
        return self._release

    async def kept(self, release: str | None) -> Release | None:
        return self._release

    async def lock(self, release: Release) -> bytes:
        return self._files[release.manifest.lock_sha256]

    async def artifact(self, release: Release, sha256: str) -> bytes:
        return self._files[sha256]


@dataclass
class Node:
    """One node's folders, and the upgrade that is tried on them."""

    place: Path
    tools: NodeTools
    port: int = 1
    openclaw: dict[str, Any] = field(default_factory=dict)
    service: Any = None
    gateway: Any = None

    def __post_init__(self) -> None:
        self.layout = Layout(self.place / "agent")
        self.layout.make()
        self.home = self.place / "home"
        (self.home / ".openclaw").mkdir(parents=True, exist_ok=True)
        self.bookmarks = Bookmarks(self.layout.bookmarks)
        self.snapshots = Snapshots(self.bookmarks, str(self.layout.home))
        self.said: list[str] = []

    def config(self) -> AgentConfig:
        return AgentConfig.model_validate(
            {
                "gateway": {"home": self.home, "port": self.port},
                "openclaw": {"node": self.tools.node, "npm": self.tools.npm_cli, **self.openclaw},
            }
        )

    def deps(self, source: Source, account: Account | None = None) -> Deps:
        tools = replace(
            self.tools,
            child_of=str(self.layout.home),
            account=account,
            scratch=self.layout.scratch,
            empty=self.layout.empty,
        )
        config, nothing = self.config(), cast(Any, None)
        return Deps(
            config=config,
            layout=self.layout,
            role=Role.CANARY,
            clock=SystemClock(),
            tools=tools,
            npm=Npm(tools),
            installer=make_installer(config, self.layout, tools),
            service=self.service,
            gateway=self.gateway,
            readiness=nothing,
            releases=source,
            attestors=nothing,
            alarm=nothing,
            weight=nothing,
            claims=nothing,
            trees=nothing,
            snapshots=self.snapshots,
            baseline=lambda release: {},
            progress=self.said.append,
        )

    def context(
        self, manifest: ReleaseManifest, files: list[bytes], upgrade: str = "u1"
    ) -> Context:
        """The bookmark's folder is there already, as `frozen` would have left it."""
        release = parse_release(manifest.canonical())
        record = Record(
            upgrade=upgrade,
            target=Target(
                order="a1b2c3d4:canary",
                rollout="a1b2c3d4",
                release=release.id,
                set_by="op",
                set_at=1.0,
                soak_s=0.0,
            ),
            label=release.label,
            phase=Phase.STAGED,
            status=Status.ENTERED,
            began=1.0,
            entered=1.0,
        )
        context = Context(self.deps(Source(release, files)), record, release)
        self.bookmarks.write(self.bookmark(upgrade))
        return context

    def bookmark(self, upgrade: str = "u1", previous: str | None = None) -> Bookmark:
        return Bookmark(
            upgrade=upgrade,
            previous=previous,
            previous_version=None,
            created=1.0,
            weight=100,
            readiness={},
            installed="",
        )
