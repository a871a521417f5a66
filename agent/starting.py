"""`rollcall-agent run`: the daemon of a home, made and run until it is told to stop."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.layout import Layout
from shared.lean import keep_for_good, no_system_authorities, one_heap
from shared.terminal import print_json, run_async, say

if TYPE_CHECKING:
    from agent.daemon import Daemon


@dataclass(frozen=True)
class Asked:
    """`foreground`: log to stderr; `as_json`: announce readiness as JSON."""

    home: Path
    foreground: bool = False
    as_json: bool = False


def plain_run(words: list[str]) -> Asked | None:
    """Of `run --home HOME`, as service managers say it. None for anything else: that is for the command
    line to read, or to refuse."""
    match words:
        case ["run", "--home", home] if not home.startswith("-"):
            return Asked(Path(home))
        case _:
            return None


def make_daemon(home: Path) -> Daemon:
    with no_system_authorities():
        from agent.daemon import Daemon
    from agent.cage import gateway_account, prepare_cage
    from agent.config import load_config
    from agent.trust import load_trust
    from shared.clock import SystemClock

    config = load_config(home / "agent.toml")
    layout = Layout(home, config.openclaw.store)
    account = gateway_account(config.gateway.user, layout.config)
    trust = load_trust(layout)
    os.umask(0o077)
    layout.make()
    prepare_cage(config, layout, account)
    return Daemon(config, layout, trust, SystemClock(), account)


def run_agent(asked: Asked) -> None:
    one_heap()
    daemon = make_daemon(asked.home)
    from agent.running import run_until_signal
    from shared import logs

    logs.configure(None if asked.foreground else Layout(asked.home).logs / "agent.log")

    def ready(urls: dict[str, str]) -> None:
        keep_for_good()
        if asked.as_json:
            print_json({"home": str(asked.home), "urls": urls})
        else:
            say(f"agent of {asked.home} is up; readiness at {urls['readiness']}")

    run_async(run_until_signal(daemon, ready))
