"""`rollcall-agent rollback, bookmark, blocklist`: back to what ran before, and what is kept for that."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from agent.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from agent.cli.parts import ask_or_be
from agent.cli.shown import outcome
from shared.canonical import canonical_json, parse_json
from shared.report import Loss, NodeReport, RollbackPlan
from shared.terminal import confirm, print_json, print_table, say

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
        plan = RollbackPlan.from_bytes(ask_or_be(home, "GET", "/v1/rollback", timeout_s=120))
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
    asked = canonical_json({"reason": reason})
    raw = ask_or_be(home, "POST", "/v1/rollback", asked, timeout_s=3600, recover=True)
    report = NodeReport.from_bytes(raw)
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
    answer = _ask(home, "GET", "/v1/bookmarks")
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
    value = _ask(home, "GET", f"/v1/bookmarks/{quote(upgrade, safe='')}")
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
    asked = {"count": keep, "days": days, "dry_run": dry_run}
    answer = _ask(home, "POST", "/v1/bookmarks/prune", asked)
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
    answer = _ask(home, "GET", "/v1/blocklist")
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
    answer = _ask(home, "POST", "/v1/blocklist/clear", {"release": release})
    if as_json:
        print_json(answer)
        return
    for name in answer["cleared"]:
        sys.stdout.write(f"{name[:12]} may be tried again\n")


def _ask(home: Path, method: str, path: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
    body = None if asked is None else canonical_json(asked)
    raw = ask_or_be(home, method, path, body, timeout_s=600)
    answer: dict[str, Any] = parse_json(raw, max_bytes=MAX_ANSWER)
    return answer
