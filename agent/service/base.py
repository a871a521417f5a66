"""What the rest of the agent needs of whoever supervises the gateway: launchd, or a supervisor of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.account import Account


@dataclass(frozen=True)
class ServiceSpec:
    """How the gateway is started. The paths in it go through `current`, so it survives upgrades."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    log: Path
    account: Account | None = None
    """Whom it runs as, when that is not the agent's own account."""


@dataclass(frozen=True)
class Pid:
    """A process, told from another that got the same number later by when it was started."""

    pid: int
    started: float


class GatewayService(Protocol):
    async def start(self, spec: ServiceSpec) -> Pid:
        """Want it running, and start it. Returns the new process; keeps it alive from here on."""
        ...

    async def stop(self, timeout_s: float) -> None:
        """Want it stopped, and stop it; returns when the process and its children are gone."""
        ...

    async def alive(self) -> Pid | None: ...
