"""`rollcall-agent`: join a fleet, run the daemon, look at this node, take it back."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.layout import Layout
from shared.errors import ConfigError, RollcallError, UnavailableError, UsageError
from shared.readiness import Check, ReadinessDocument
from shared.report import NodeReport, UpgradeReport
from shared.roster import Role
from shared.terminal import main_of, print_json, run_async, say
from shared.wire import is_node_name

app = typer.Typer(
    help="The Rollcall agent of this node.", no_args_is_help=True, pretty_exceptions_enable=False
)

DEFAULT_HOME = Path(
    "/Library/Application Support/Rollcall" if sys.platform == "darwin" else "/var/lib/rollcall"
)

HomeOption = Annotated[
    Path,
    typer.Option(envvar="ROLLCALL_HOME", help="The agent's home.", show_default=str(DEFAULT_HOME)),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]


@app.command()
def join(
    token: Annotated[str, typer.Argument(help="What `rollcall node token create` printed.")],
    name: Annotated[str, typer.Option(help="This node's name: a-z, 0-9 and hyphens.")],
    role: Annotated[
        Role | None, typer.Option(help="What it is for in a rollout; the token's, else stable.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Where it stands; the token's if absent.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Join a fleet: make this node's keys and get its certificate.

    For a node that was installed anew, with a token made by: rollcall node token create --rejoin NAME
    """
    from agent.join import join as join_fleet
    from shared.fleet import JoinToken

    if not is_node_name(name):
        raise UsageError(f"{name!r} is no node name: use a-z, 0-9 and hyphens, 32 at most")
    identity = run_async(join_fleet(Layout(home), JoinToken.decode(token), name, role, site))
    if as_json:
        print_json({"node": identity.name, "role": identity.role, "coordinator": identity.url})
    else:
        say(f"{identity.name} has joined as {identity.role}; next: rollcall-agent run")


@app.command()
def run(
    home: HomeOption = DEFAULT_HOME,
    foreground: Annotated[
        bool, typer.Option(help="Log to stderr instead of <home>/logs/agent.log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Announce readiness as JSON.")] = False,
) -> None:
    """Run the agent until it is told to stop. Its gateway stays up when it goes."""
    from agent.daemon import run_until_signal
    from shared import logs

    daemon = _make_daemon(home)
    logs.configure(None if foreground else Layout(home).logs / "agent.log")

    def ready(urls: dict[str, str]) -> None:
        if as_json:
            print_json({"home": str(home), "urls": urls})
        else:
            say(f"agent of {home} is up; readiness at {urls['readiness']}")

    run_async(run_until_signal(daemon, ready))


@app.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show what this node runs, whether it is ready, and what it waits for."""
    report = NodeReport.from_bytes(_ask(home, "GET", "/v1/status"))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in _describe(report):
        sys.stdout.write(line + "\n")


@app.command()
def readiness(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the merged readiness document. Exit code 1 unless it is green."""
    from shared.messages import Verdict

    document = ReadinessDocument.from_bytes(_ask(home, "GET", "/v1/readiness"))
    if as_json:
        print_json(document.model_dump(mode="json"))
    else:
        sys.stdout.write(f"{document.node} is {document.status}\n")
        for check in document.checks:
            sys.stdout.write(f"  {check.status:8}{check.id:10}{check.reason or _value(check)}\n")
        sys.stdout.write(f"  ready_probe_sha256 {document.ready_probe_sha256}\n")
    if document.status is not Verdict.GREEN:
        raise typer.Exit(1)


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
        sys.stdout.write(f"{_outcome(upgrade)}\n")
    if upgrade is None or upgrade.outcome not in ("rolled_back", "dropped"):
        raise typer.Exit(1)


@app.command()
def reds(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the open reds that this node holds, its own and its peers'."""
    report = NodeReport.from_bytes(_ask(home, "GET", "/v1/status"))
    if as_json:
        print_json({"node": report.node, "open": report.open_reds, "frozen_by": report.frozen_by})
    elif not report.open_reds:
        say("no open reds")
    else:
        sys.stdout.write("".join(f"{red}\n" for red in report.open_reds))


@app.command()
def clear(
    key: Annotated[str, typer.Argument(help="The red's key, as `rollcall-agent reds` shows it.")],
    reason: Annotated[str, typer.Option(help="Why it is over; told to the peers.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """End one of this node's own reds, and with it the freeze of its peers; or, here alone, the red of
    a node that was revoked."""
    from shared.canonical import canonical_json

    _ask(home, "POST", "/v1/clear", canonical_json({"key": key, "reason": reason}))
    if as_json:
        print_json({"cleared": key})
    else:
        say(f"{key} is cleared")


@app.command("rotate-keys")
def rotate_keys(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Give this node a new message key and a new certificate. Needs the coordinator."""
    from shared.canonical import parse_json

    answer = parse_json(_ask(home, "POST", "/v1/keys", timeout_s=60))
    if as_json:
        print_json(answer)
    else:
        say(f"this node signs with key {answer['keyid'][:16]} from now on")


def _make_daemon(home: Path) -> Any:
    from agent.cage import gateway_account, prepare_cage
    from agent.config import load_config
    from agent.daemon import Daemon
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


def _roll_back(home: Path, reason: str) -> NodeReport:
    """Through the running agent, or, when there is none, as the agent."""
    from shared import logs
    from shared.canonical import canonical_json

    try:
        raw = _ask(home, "POST", "/v1/rollback", canonical_json({"reason": reason}), 3600)
        return NodeReport.from_bytes(raw)
    except UnavailableError:
        say("the agent is not running; doing it without")
    daemon = _make_daemon(home)
    logs.configure(Layout(home).logs / "agent.log")

    async def alone() -> NodeReport:
        async with daemon:
            await daemon.conductor.recover()
            report: NodeReport = await daemon.roll_back(reason)
            return report

    return run_async(alone())


def _ask(
    home: Path, method: str, path: str, body: bytes | None = None, timeout_s: float = 10
) -> bytes:
    """One request to the running agent's socket. Raises UnavailableError when there is none."""
    socket = Layout(home).socket
    if not home.is_dir():
        raise ConfigError(f"{home} does not exist", remedy="name the agent's home with --home")
    if not os.access(home, os.X_OK):
        raise RollcallError(f"{home} may not be entered by this user", remedy="try with sudo")

    async def ask() -> bytes:
        from shared.http import call, session

        async with session(unix_socket=socket) as client:
            return await call(client, method, f"http://agent{path}", data=body, timeout_s=timeout_s)

    if not socket.exists():
        raise UnavailableError(
            f"no agent is running in {home}", remedy="start it with: rollcall-agent run"
        )
    return asyncio.run(ask())


def _value(check: Check) -> str:
    if check.unit == "bytes" and isinstance(check.observed, float):
        return f"{check.observed / (1 << 20):.0f} MiB"
    if isinstance(check.observed, float):
        return f"{check.observed:g} {check.unit or ''}".rstrip()
    return str(check.observed or "")


def _describe(report: NodeReport) -> list[str]:
    ready = report.readiness
    lines = [
        f"{report.node}: OpenClaw {report.version_running or 'not running'}"
        f" (on disk {report.version_on_disk or 'none'}), {ready.status}",
    ]
    if ready.reason:
        lines.append(f"  because   {ready.reason}")
    lines.append(f"  hash      {ready.ready_probe_sha256}")
    if report.upgrade is not None:
        lines.append(f"  upgrade   {_outcome(report.upgrade)}")
    if report.waiting:
        lines.append(f"  waits     {report.waiting}")
    lines += [f"  alert     {alert}" for alert in report.alerts]
    lines += [f"  red       {red}" for red in report.open_reds]
    lines += [f"  peer      {name} ({how or 'not found'})" for name, how in report.peers.items()]
    lines += [f"  dropped   {count} ({reason})" for reason, count in report.dropped.items()]
    return lines


def _outcome(upgrade: UpgradeReport) -> str:
    parts = [upgrade.phase, upgrade.detail, upgrade.reason]
    if upgrade.outage_s is not None:
        parts.append(f"outage {upgrade.outage_s:.1f} s")
    return ", ".join(part for part in parts if part)


main = main_of(app, "rollcall-agent")
