"""`rollcall-agent rollback`: back to what ran before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent, make_daemon
from agent.cli.shown import outcome
from agent.layout import Layout
from shared.errors import UnavailableError
from shared.report import NodeReport
from shared.terminal import print_json, run_async, say

app = typer.Typer()


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the journal and told to the peers.")] = (
        "an operator asked for it"
    ),
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Go back to what ran before the last upgrade: tree, configuration, state and weight.

    Needs neither the coordinator nor the network, and works while the agent is down.
    """
    say("rolling back; this takes as long as a stop, a copy and a start")
    report = _roll_back(home, reason)
    upgrade = report.upgrade
    if as_json:
        print_json(report.model_dump(mode="json"))
    elif upgrade is not None:
        sys.stdout.write(f"{outcome(upgrade)}\n")
    if upgrade is None or upgrade.outcome not in ("rolled_back", "dropped"):
        raise typer.Exit(1)


def _roll_back(home: Path, reason: str) -> NodeReport:
    """Through the running agent, or, when there is none, as the agent."""
    from shared import logs
    from shared.canonical import canonical_json

    try:
        raw = ask_agent(home, "POST", "/v1/rollback", canonical_json({"reason": reason}), 3600)
        return NodeReport.from_bytes(raw)
    except UnavailableError:
        say("the agent is not running; doing it without")
    daemon = make_daemon(home)
    logs.configure(Layout(home).logs / "agent.log")

    async def alone() -> NodeReport:
        async with daemon:
            await daemon.conductor.recover()
            report: NodeReport = await daemon.roll_back(reason)
            return report

    return run_async(alone())
