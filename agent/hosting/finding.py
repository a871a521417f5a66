"""One thing that preflight looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import AgentConfig, ServiceKind
from agent.layout import Layout
from agent.service.host import Host
from shared.account import Account
from shared.readiness import CheckStatus


@dataclass(frozen=True)
class Finding:
    id: str
    status: CheckStatus
    """Failed is only what is necessary; a warning says that something works less well."""
    observed: str
    reason: str = ""
    remedy: str = ""

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": str(self.status),
            "observed": self.observed,
            "reason": self.reason,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Subject:
    """What is looked at. `config` is None where agent.toml cannot be used; what needs it is then unknown."""

    host: Host
    layout: Layout
    config: AgentConfig | None
    account: Account | None = None
    in_job: bool = False
    """Whether the service manager runs this, as it will run the agent: launchd's jobs and a terminal are
    treated differently (MACOS.md, 1)."""

    @property
    def home(self) -> Path:
        return self.layout.home

    @property
    def kind(self) -> ServiceKind:
        return ServiceKind.PROCESS if self.config is None else self.config.service.kind


def passed(name: str, observed: str) -> Finding:
    return Finding(name, CheckStatus.PASS, observed)


def unknown(name: str, reason: str) -> Finding:
    return Finding(name, CheckStatus.UNKNOWN, "", reason)
