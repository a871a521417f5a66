"""What the steps are given. Nothing in here decides, and nothing in here remembers a phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.config import AgentConfig
from agent.layout import Layout
from agent.openclaw.cli import OpenClaw
from agent.openclaw.engines import Engines
from agent.openclaw.gateway import Gateway
from agent.openclaw.listings import Listings
from agent.service.base import GatewayService, ServiceSpec
from agent.upgrade.bookmark import Bookmarks
from agent.upgrade.installers.base import Installer
from agent.upgrade.phases import Phase
from agent.upgrade.record import Record
from agent.upgrade.snapshots import Snapshots
from shared.clock import Clock
from shared.command import CHILD_OF
from shared.errors import RollcallError
from shared.messages import RedKind
from shared.npm import NodeTools, Npm
from shared.readiness import ReadinessDocument
from shared.release import Release
from shared.report import Target
from shared.roster import Role


class StepFailed(RollcallError):  # noqa: N818 - an outcome of a step, and read as one
    """The phase did not come true. Its reason is journalled, shown, and broadcast."""

    code = "step-failed"


class Readiness(Protocol):
    async def refresh(self, ids: list[str] | None = None) -> ReadinessDocument: ...
    def document(self) -> ReadinessDocument: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ReleaseSource(Protocol):
    """Signed releases and their files, checked against TUF metadata and hashes."""

    async def authorise(self, release: str) -> Release:
        """For a new order. Raises UntrustedError unless operators sign for this release today."""
        ...

    async def release(self, release: str) -> Release:
        """One that was authorised here before; needs no network."""
        ...

    async def kept(self, release: str | None) -> Release | None: ...
    async def lock(self, release: Release) -> bytes: ...
    async def artifact(self, release: Release, sha256: str) -> bytes: ...


class Attestors(Protocol):
    async def collect(
        self, order: str, release: Release, ready_probe_sha256: str, timeout_s: float
    ) -> list[str]: ...


class Alarm(Protocol):
    """Reds of this node, raised once for a kind and a release whatever happens in between."""

    async def raise_red(self, kind: RedKind, reason: str, release: str | None) -> None: ...
    async def block(self, release: str, reason: str) -> None: ...
    async def blocked(self, release: str) -> str | None: ...
    def frozen(self) -> str | None: ...


class Store(Protocol):
    """The trees that this agent shares with others."""

    async def prepare(self, release: str) -> None:
        """Nobody takes this release's tree from now on, and old ones make room for it."""
        ...


class Claims(Protocol):
    """Asks the coordinator before something begins."""

    async def claim(self, target: Target) -> str:
        """Why the upgrade may not begin now; empty when this node has it."""
        ...

    def lost(self) -> None:
        """The coordinator is away, or has nothing for this node: what was claimed is asked for anew."""
        ...


class Weight(Protocol):
    """The share of traffic this node takes: 0 while it is drained, durable."""

    async def set(self, percent: int) -> None: ...
    async def leave(self) -> list[str]:
        """To 0, and wait until the load balancers know. Returns those that may not, at the end of the time."""
        ...

    def get(self) -> int: ...
    def held(self) -> str:
        """Why no node of the fleet takes more now, by an operator's word; empty when it may."""
        ...

    def asked(self) -> bool:
        """Whether a load balancer asks for it, as far as can be known yet."""
        ...


@dataclass(frozen=True)
class Deps:
    """Everything a step may touch, made once by the composition root."""

    config: AgentConfig
    layout: Layout
    role: Role
    clock: Clock
    tools: NodeTools
    npm: Npm
    installer: Installer
    service: GatewayService
    gateway: Gateway
    readiness: Readiness
    releases: ReleaseSource
    attestors: Attestors
    alarm: Alarm
    weight: Weight
    claims: Claims
    trees: Store
    snapshots: Snapshots
    baseline: Callable[[str | None], dict[str, Any]]
    """What the node is like now, with its release, in numbers that a later one is held against."""
    progress: Callable[[str], None]
    listings: Listings = field(default_factory=Listings)
    engines: Engines = field(default_factory=Engines)

    @property
    def bookmarks(self) -> Bookmarks:
        return self.snapshots.bookmarks

    def tree(self, release: str) -> Path:
        return self.layout.releases / release

    def openclaw(self, tree: Path) -> OpenClaw:
        return self.installer.openclaw(tree)

    def service_spec(self) -> ServiceSpec:
        """Through `current`, so that an upgrade changes a link and not the service (law 6). The gateway
        is nobody's child: it outlives the agent."""
        openclaw = self.openclaw(self.layout.current)
        port = str(self.config.gateway.port)
        return ServiceSpec(
            argv=tuple(openclaw.argv("gateway", "--port", port)),
            env={k: v for k, v in openclaw.environment().items() if k != CHILD_OF},
            cwd=self.config.gateway.home,
            log=self.layout.logs / "gateway.log",
            account=self.tools.account,
        )


@dataclass(frozen=True)
class Context:
    """One step's view: the dependencies, the record as the journal has it, and the signed release."""

    deps: Deps
    record: Record
    release: Release | None

    @property
    def tree(self) -> Path:
        return self.deps.tree(self.record.target.release)

    @property
    def moves(self) -> bool:
        """False where nothing that a gateway loads is another: it then keeps running."""
        return bool(self.record.fact(Phase.CLAIMED, "moves") is not False)

    def signed(self) -> Release:
        """Raises StepFailed when the release could not be had; only a rollback goes without."""
        if self.release is None:
            raise StepFailed("the signed release is not at hand")
        return self.release


def needs_fix(context: Context, touched: str | None) -> bool:
    """Whether the state is another version's; `touched` is what it says itself."""
    before = context.record.fact(Phase.CLAIMED, "version_before")
    return bool({touched, before} - {None, context.signed().manifest.openclaw})
