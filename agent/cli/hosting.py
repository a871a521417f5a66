"""`rollcall-agent install, start, preflight, …`: put the agent on this host, and see what the host can do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from shared.errors import RollcallError
from shared.terminal import print_json, run_async, say

app = typer.Typer()

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written and run; do nothing.")
]


@app.command()
def install(
    home: HomeOption = DEFAULT_HOME,
    launcher: Annotated[
        Path | None,
        typer.Option(help="What the job starts; never replaced. <home>/launcher if absent."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the agent a job of launchd or systemd that starts at boot, and start it. Needs root."""
    from agent.cage import gateway_account
    from agent.config import load_config
    from agent.hosting.plan import obstacles, plan_install
    from agent.hosting.setup import Setup
    from agent.layout import Layout
    from agent.service.host import Host
    from shared.clock import SystemClock

    host = Host.here()
    config = load_config(home / "agent.toml")
    layout = Layout(home.absolute(), config.openclaw.store)
    account = gateway_account(config.gateway.user, layout.config)
    chosen = launcher or layout.home / "launcher"
    plan = plan_install(host, layout, chosen, config, account)
    in_the_way = obstacles(host, layout, chosen)
    if dry_run:
        _show({**plan.shown(), "in_the_way": [str(each) for each in in_the_way]}, as_json)
        return
    if in_the_way:
        raise in_the_way[0]
    layout.make()
    pid = run_async(Setup(host, SystemClock()).install(plan))
    if as_json:
        print_json({**plan.shown(), "pid": pid})
        return
    say(f"the agent runs and starts at boot (pid {pid})")
    for hint in plan.hints:
        say(f"  {hint}")


@app.command()
def uninstall(
    home: HomeOption = DEFAULT_HOME, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Stop the agent and take its job away. Its home and its gateway stay."""
    from agent.hosting.plan import plan_uninstall
    from agent.service.host import Host

    host = Host.here()
    if dry_run:
        plan = plan_uninstall(host)
        removed = [str(file.path) for file in plan.files]
        commands = [list(command) for command in plan.commands]
        _show({"removes": removed, "commands": commands}, as_json)
        return
    _need_root(host.euid)
    removed = [str(path) for path in run_async(_setup(host).uninstall())]
    if as_json:
        print_json({"removed": removed})
    else:
        say("; ".join(f"removed {path}" for path in removed) or "nothing was installed")
        say(f"its home stays: {home}")


@app.command()
def start(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Start the installed agent, also when somebody has switched it off."""
    from agent.service.host import Host

    host = Host.here()
    _need_root(host.euid)
    pid = run_async(_setup(host).start())
    if as_json:
        print_json({"home": str(home), "pid": pid})
    else:
        say(f"the agent runs (pid {pid})")


@app.command()
def stop(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Stop the installed agent and its watchdog. Its gateway serves on."""
    from agent.service.host import Host

    host = Host.here()
    _need_root(host.euid)
    run_async(_setup(host).stop())
    if as_json:
        print_json({"home": str(home), "stopped": True})
    else:
        say("the agent is stopped; again with: rollcall-agent start")


@app.command()
def preflight(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Tell what this host can and cannot do. Exit code 1 when something necessary is missing."""
    from agent.hosting.preflight import necessary_missing
    from agent.hosting.preflight import preflight as look
    from agent.layout import Layout
    from agent.service.host import Host

    findings = run_async(look(Host.here(), Layout(home.absolute())))
    if as_json:
        print_json({"checks": [finding.shown() for finding in findings]})
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.status:8}{finding.id:18}{finding.observed}\n")
            for text in (finding.reason, finding.remedy):
                if text:
                    sys.stdout.write(f"{'':26}{text}\n")
    if necessary_missing(findings):
        raise typer.Exit(1)


@app.command()
def watchdog(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Look once whether the agent's job of launchd runs, and bring it back if not. A job of its own runs
    this every minute; on systemd, Restart=always does it."""
    from agent.hosting.watchdog import Watchdog, note
    from agent.service.host import Host
    from agent.service.jobs import AGENT_LABEL
    from agent.service.processes import rotate

    host = Host.here()
    if host.launchctl is None:
        raise RollcallError("this host has no launchctl", remedy="systemd needs no watchdog")
    plist = host.daemons / f"{AGENT_LABEL}.plist"
    watched = Watchdog(host.launchctl, AGENT_LABEL, plist).look_after()
    note(home / "logs", watched)
    for printed in (home / "logs").glob("*.printed.log"):
        rotate(printed)
    if as_json:
        print_json({"action": watched.action, "detail": watched.detail, "pid": watched.pid})
    else:
        say(f"{watched.action}: {watched.detail}")
    if not watched.well:
        raise typer.Exit(1)


def _setup(host: Any) -> Any:
    from agent.hosting.setup import Setup
    from shared.clock import SystemClock

    return Setup(host, SystemClock())


def _need_root(euid: int) -> None:
    if euid != 0:
        raise RollcallError("only root may change the agent's job", remedy="try with sudo")


def _show(value: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(value)
        return
    for file in value.get("files", []):
        sys.stdout.write(f"write {file['path']} ({file['mode']})\n")
    for path in value.get("removes", []):
        sys.stdout.write(f"remove {path}\n")
    for command in value["commands"]:
        sys.stdout.write(f"run {' '.join(command)}\n")
    for key in ("in_the_way", "hints"):
        for text in value.get(key, []):
            say(f"{'in the way' if key == 'in_the_way' else 'then'}: {text}")
