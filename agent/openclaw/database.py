"""OpenClaw's SQLite files: a consistent copy of one that is written meanwhile, and what a version says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.openclaw.cli import OpenClaw
from shared.command import run_command
from shared.errors import CommandError

STATE_DATABASE = "state/openclaw.sqlite"
_AGENT: Final = re.compile(r"agents/([A-Za-z0-9._-]{1,128})/agent/[^/]+\.sqlite")
COPY_TIMEOUT_S, PREFLIGHT_TIMEOUT_S = 600.0, 120.0
SCRIPT: Final = """\
import { DatabaseSync, backup } from "node:sqlite";
const [from, to] = process.argv.slice(1);
await backup(new DatabaseSync(from, { readOnly: true }), to);
"""
"""SQLite's own online backup, by the Node and the account that the gateway uses: a database that a gateway
has written is not opened by the agent itself."""


async def copy_database(openclaw: OpenClaw, source: Path, target: Path) -> None:
    """One whole file without a log beside it, as of now; `target` is new. Raises CommandError."""
    tools = openclaw.tools
    quiet = "--disable-warning=ExperimentalWarning"
    output = await run_command(
        [str(tools.node), quiet, "--input-type=module", "-e", SCRIPT, str(source), str(target)],
        env=tools.environment(openclaw.home),
        timeout_s=COPY_TIMEOUT_S,
        cwd=openclaw.home,
        account=tools.account,
    )
    if output.code != 0:
        raise CommandError(f"{source} cannot be copied: {output.last_line()}")


@dataclass(frozen=True)
class Preflight:
    """`status`: exact, startup-repairable, migration-required, incompatible or indeterminate."""

    database: str
    status: str

    @property
    def blocks(self) -> bool:
        """Unknown is no yes."""
        return self.status not in ("exact", "startup-repairable", "migration-required")


async def preflight(openclaw: OpenClaw, state: Path, databases: list[str]) -> list[Preflight]:
    """Asks the version whether it could take these over; `databases` are relative to `state`, and have no
    logs beside them. Exists from 2026.8.1 on, for agents' databases from some later release on: one that does not
    know the command has said nothing."""
    found = []
    for name in databases:
        words = _words(name, state / name)
        if words is not None:
            _, value = await openclaw.run_json(*words, timeout_s=PREFLIGHT_TIMEOUT_S)
            if name != STATE_DATABASE and "schema" not in value:
                continue
            found.append(Preflight(name, str(value.get("status"))))
    return found


def _words(name: str, path: Path) -> list[str] | None:
    if name == STATE_DATABASE:
        return ["database", "preflight", str(path), "--json"]
    agent = _AGENT.fullmatch(name)
    if agent is None:
        return None
    return ["database", "preflight-agent", str(path), "--agent-id", agent[1], "--json"]
