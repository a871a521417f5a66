"""`rollcall cohort …`: workers by build, while two builds live side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from shared.cohorts import CohortView
from shared.terminal import print_json, print_table, say

app = typer.Typer(help="Workers by build.", no_args_is_help=True)

QueueArgument = Annotated[str, typer.Argument(help="The workers' queue.")]
BuildOption = Annotated[str, typer.Option("--build-id", help="As `rollcall cohort list` shows it.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check it, change nothing.")]


@app.callback()
def group() -> None:
    """Workers by build."""


@app.command("list")
def list_cohorts(
    queue: Annotated[str | None, typer.Argument(help="Only of this queue.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Each build: how many workers take its work, how many finish theirs, and what is blocked.

    The processes of a drained build may be stopped once ACTIVE and DRAINING are 0.
    """
    answer = Client(config).get("/v1/cohorts")
    found = [each for each in answer["cohorts"] if queue in (None, each["queue"])]
    if as_json:
        print_json({"cohorts": found})
        return
    columns = [
        "QUEUE",
        "BUILD",
        "STATUS",
        "ACTIVE",
        "DRAINING",
        "SILENT",
        "IN FLIGHT",
        "WAITING",
        "BLOCKED",
        "NOTE",
    ]
    print_table(columns, [_row(CohortView.from_value(each)) for each in found], empty="no workers")


def _row(cohort: CohortView) -> list[str]:
    counts = (
        cohort.active_workers,
        cohort.draining_workers,
        cohort.silent_workers,
        cohort.in_flight,
        cohort.waiting,
    )
    blocked = f"{cohort.blocked}" + (f" ({cohort.blocked_age_s:.0f} s)" if cohort.blocked else "")
    by = [f"drained by {cohort.drained_by}"] if cohort.drain_intent else []
    note = "; ".join([*by, *cohort.notes])
    return [cohort.queue, cohort.build_id, cohort.status, *map(str, counts), blocked, note]


@app.command("drain")
def drain_cohort(
    queue: QueueArgument,
    build_id: BuildOption,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A build takes no new work, and finishes what it has in hand. It may be said again."""
    answer = _ask("drain", queue, build_id, config, dry_run=dry_run, as_json=as_json)
    if not as_json:
        word = "would be drained" if dry_run else "is drained"
        say(f"build {build_id} of {queue} {word}{_workers(answer)}")


@app.command("resume")
def resume_cohort(
    queue: QueueArgument,
    build_id: BuildOption,
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """A build takes work again. It may be said again."""
    answer = _ask("resume", queue, build_id, config, dry_run=dry_run, as_json=as_json)
    if not as_json:
        word = "would take work again" if dry_run else "takes work again"
        say(f"build {build_id} of {queue} {word}{_workers(answer)}")


def _ask(
    verb: str, queue: str, build_id: str, config: Path, *, dry_run: bool, as_json: bool
) -> dict[str, Any]:
    path = f"/v1/cohorts/{quote(queue, safe='')}/{verb}"
    answer = Client(config).post(path, {"build_id": build_id, "dry_run": dry_run})
    if as_json:
        print_json(answer)
    for warning in answer["warnings"]:
        say(f"warning: {warning}")
    return answer


def _workers(answer: dict[str, Any]) -> str:
    nodes = CohortView.from_value(answer["cohort"]).nodes
    return f": {', '.join(nodes)}" if nodes else "; no node has it now"
