"""`rollcall-agent rollback, bookmark, blocklist`: back to what ran before, and what is kept for that."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_agent
from agent.cli.shown import outcome
from agent.layout import Layout
from agent.starting import make_daemon
from shared.canonical import canonical_json, parse_json
from shared.errors import UnavailableError
from shared.report import Loss, NodeReport, RollbackPlan
from shared.terminal import confirm, print_json, print_table, run_async, say

app = typer.Typer()
bookmark = typer.Typer(help="What a rollback restores, one for each upgrade.", no_args_is_help=True)
blocklist = typer.Typer(help="Releases that failed on this node.", no_args_is_help=True)
app.add_typer(bookmark, name="bookmark")
app.add_typer(blocklist, name="blocklist")

MAX_ANSWER = 16 << 20


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the journal and told to the peers.")] = (
        "an operator asked for it"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done and lost; do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Go back to what ran before the last upgrade: tree, configuration, state and weight.

    Needs neither the coordinator nor the network, and works while the agent is down. At a terminal it
    shows what would be lost and asks first.
    """
    asking = sys.stdin.isatty() and not yes and not as_json
    if dry_run or asking:
        plan = _plan(home)
        if as_json:
            print_json(plan.model_dump(mode="json"))
        else:
            for line in _describe(plan):
                sys.stderr.write(f"{line}\n")
        if dry_run:
            raise typer.Exit(0 if plan.possible else 1)
        if plan.possible:
            confirm("Roll back?")
    began = time.monotonic()
    report = _roll_back(home, reason)
    upgrade = report.upgrade
    if as_json:
        print_json(report.model_dump(mode="json"))
    elif upgrade is not None:
        sys.stdout.write(f"{outcome(upgrade)}; {time.monotonic() - began:.0f} s in all\n")
    if upgrade is None or upgrade.outcome not in ("rolled_back", "dropped"):
        raise typer.Exit(1)


def _describe(plan: RollbackPlan) -> list[str]:
    if not plan.possible:
        return [f"no rollback: {plan.reason}"]
    lines = [f"OpenClaw {plan.running or '?'} -> {plan.previous or 'none'} ({plan.upgrade})"]
    if plan.outage_s is not None:
        lines.append(f"  about {plan.outage_s:.0f} s without a gateway")
    return lines + _describe_loss(plan.lost)


def _describe_loss(lost: Loss) -> list[str]:
    turns = "agent turns unknown" if lost.turns is None else f"{lost.turns} agent turns"
    lines = [f"  set aside: {lost.files} files written since the switch, {turns}"]
    lines += [f"    {name}" for name in lost.named]
    if lost.files > len(lost.named):
        lines.append(f"    and {lost.files - len(lost.named)} more")
    return lines


@bookmark.command("list")
def list_bookmarks(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Every bookmark of this node, the oldest first."""
    answer = _either(home, "GET", "/v1/bookmarks", None, _all)
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each["upgrade"],
            each["previous_version"] or "-",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each["created"])),
            f"{each['bytes'] >> 20} MiB",
            each["needed"] or "-",
        ]
        for each in answer["bookmarks"]
    ]
    columns = ["UPGRADE", "LEADS TO", "MADE", "SIZE", "STAYS BECAUSE"]
    print_table(columns, rows, empty="no bookmark: nothing was upgraded here yet")


@bookmark.command("show")
def show_bookmark(
    upgrade: Annotated[str, typer.Argument(help="As `rollcall-agent bookmark list` shows it.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Everything that one bookmark holds."""

    async def found(daemon: Any) -> dict[str, Any]:
        return dict((await daemon.keeper.show(upgrade)).model_dump(mode="json"))

    value = _either(home, "GET", f"/v1/bookmarks/{upgrade}", None, found)
    if as_json:
        print_json(value)
        return
    for key in ("upgrade", "previous", "previous_version", "weight", "lock_sha256", "tree_sha256"):
        sys.stdout.write(f"{key:20} {value[key]}\n")
    for name, version in sorted(value["plugins"].items()):
        sys.stdout.write(f"{'plugin':20} {name} {version}\n")
    for folder in value["folders"]:
        digest = folder["sha256"] or "did not exist"
        sys.stdout.write(f"{'folder':20} {folder['original']} {digest}\n")
    ready = value["readiness"]
    hashes = {"ready_probe_sha256", "evidence_sha256"} & set(ready)
    for key in ("status", *sorted(hashes)):
        sys.stdout.write(f"{key:20} {ready.get(key)}\n")


@bookmark.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(min=0, help="How many to keep; agent.toml's number if absent.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="Older ones go; agent.toml's number if absent.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go.")] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Remove bookmarks, and what rollbacks have set aside. Never one that a rollback may still need."""
    body = canonical_json({"count": keep, "days": days, "dry_run": dry_run})

    async def done(daemon: Any) -> dict[str, Any]:
        keeping = daemon.keeper.keeping(keep, days)
        return {"pruned": await daemon.keeper.prune(keeping, dry_run=dry_run)}

    answer = _either(home, "POST", "/v1/bookmarks/prune", body, done)
    if as_json:
        print_json(answer)
        return
    verb = "would go" if dry_run else "is gone"
    for name in answer["pruned"]:
        sys.stdout.write(f"{name} {verb}\n")
    if not answer["pruned"]:
        say("nothing to prune")


@blocklist.command("list")
def list_blocked(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Releases that failed here, and why."""

    async def found(daemon: Any) -> dict[str, Any]:
        blocked = await daemon.keeper.blocklist()
        return {"blocked": [each.model_dump(mode="json") for each in blocked]}

    answer = _either(home, "GET", "/v1/blocklist", None, found)
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            each["release"][:12],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each["at"])),
            each["reason"],
        ]
        for each in answer["blocked"]
    ]
    print_table(["RELEASE", "SINCE", "REASON"], rows, empty="no release is blocked")


@blocklist.command("clear")
def clear_blocked(
    release: Annotated[str, typer.Argument(help="The first characters of its id, or all.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Let a release be tried again when it is the target once more."""

    async def done(daemon: Any) -> dict[str, Any]:
        return {"cleared": await daemon.keeper.unblock(release)}

    body = canonical_json({"release": release})
    answer = _either(home, "POST", "/v1/blocklist/clear", body, done)
    if as_json:
        print_json(answer)
        return
    for name in answer["cleared"]:
        sys.stdout.write(f"{name[:12]} may be tried again\n")


async def _all(daemon: Any) -> dict[str, Any]:
    found = await daemon.keeper.bookmarks()
    return {"bookmarks": [each.model_dump(mode="json") for each in found]}


def _either(
    home: Path,
    method: str,
    path: str,
    body: bytes | None,
    alone: Callable[[Any], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Ask the running agent, or, when there is none, be the agent for a moment."""
    try:
        raw = ask_agent(home, method, path, body, 600)
        value: dict[str, Any] = parse_json(raw, max_bytes=MAX_ANSWER)
    except UnavailableError:
        value = _alone(home, alone)
    return value


def _alone(home: Path, work: Callable[[Any], Awaitable[Any]]) -> Any:
    from shared import logs

    daemon = make_daemon(home)
    logs.configure(Layout(home).logs / "agent.log")

    async def run() -> Any:
        async with daemon:
            await daemon.conductor.load()
            return await work(daemon)

    return run_async(run())


def _plan(home: Path) -> RollbackPlan:
    try:
        return RollbackPlan.from_bytes(ask_agent(home, "GET", "/v1/rollback", None, 120))
    except UnavailableError:
        plan: RollbackPlan = _alone(home, lambda daemon: daemon.plan_rollback())
        return plan


def _roll_back(home: Path, reason: str) -> NodeReport:
    """Through the running agent, or, when there is none, as the agent."""
    try:
        raw = ask_agent(home, "POST", "/v1/rollback", canonical_json({"reason": reason}), 3600)
        return NodeReport.from_bytes(raw)
    except UnavailableError:
        say("the agent is not running; doing it without")

    async def recovered(daemon: Any) -> NodeReport:
        await daemon.conductor.recover()
        report: NodeReport = await daemon.roll_back(reason)
        return report

    report: NodeReport = _alone(home, recovered)
    return report
